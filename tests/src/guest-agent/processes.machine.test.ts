import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { processProto } from "@wrenn/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGuestAgent, user, type GuestAgent } from "./harness.ts";
import { alive, byPid, byTag, eventually, observe, ProcessEvents, shell } from "./process-events.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

describe.each([{ binary: false }, { binary: true }])("with binary messages: $binary", (codec) => {
  const client = () => agent.process(codec);

  test("a command's output and exit code are told, beginning with its pid", async () => {
    const seen = await observe(client().start(shell("echo out; echo err >&2; exit 3")));
    expect(seen.pid).toBeGreaterThan(1);
    expect(seen).toMatchObject({ stdout: "out\n", stderr: "err\n" });
    expect(seen.end).toMatchObject({ exitCode: 3, exited: true, status: "exit status 3", error: "exit status 3" });
    expect(seen.end).toMatchObject({ oomKilled: false, timedOut: false });
  });

  test("a command that succeeds has no error", async () => {
    const { end } = await observe(client().start({ process: { cmd: "true" } }));
    expect(end).toMatchObject({ exitCode: 0, exited: true, status: "exit status 0" });
    expect(end?.error).toBeUndefined();
  });

  test("bytes that are not text arrive as they are", async () => {
    const seen = await observe(
      client().start(shell(String.raw`printf '\000\377\200\n'; printf '\303' ; sleep 0.05; printf '\244'`)),
    );
    expect(seen.stdout).toBe("\0\u00ff\u0080\n\u00c3\u00a4");
  });

  test("several MiB of output arrive complete before the end", async () => {
    const seen = await observe(client().start(shell("head -c 8388608 /dev/zero | tr '\\0' x; echo done >&2")));
    expect(seen.stdout.length).toBe(8 * 1024 * 1024);
    expect(seen.stderr).toBe("done\n");
    expect(seen.end?.exitCode).toBe(0);
  });

  test("a signal's exit code is a shell's", async () => {
    const { end } = await observe(client().start(shell("kill -TERM $$")));
    expect(end).toMatchObject({
      exitCode: 143,
      exited: false,
      status: "signal: terminated",
      error: "signal: terminated",
    });
  });

  test("processes are listed with what they were started with, until they end", async () => {
    const config = { cmd: "sleep", args: ["60"], envs: { A: "b" }, cwd: "/tmp" };
    const events = new ProcessEvents(client().start({ process: config, tag: `listed-${codec.binary}` }));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    const listed = (await client().list({})).processes.find((process) => process.pid === pid);
    expect(listed).toMatchObject({ pid, tag: `listed-${codec.binary}`, config });
    await client().sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGTERM });
    await events.toEnd();
    expect((await client().list({})).processes.map((process) => process.pid)).not.toContain(pid);
  });

  test("who joins sees the start first, then output from then on, and the same end", async () => {
    const tag = `joined-${codec.binary}`;
    const starter = new ProcessEvents(client().start({ ...shell("echo early; read go; echo late; exit 5"), tag }));
    const { pid } = await starter.until((seen) => seen.stdout === "early\n");
    const joined = new ProcessEvents(client().connect({ process: byTag(tag) }));
    expect((await joined.until((seen) => seen.pid !== 0)).pid).toBe(pid);
    const input = { input: { case: "stdin", value: Buffer.from("go\n") } } as const;
    await client().sendInput({ process: byPid(pid), input });
    expect(await joined.toEnd()).toMatchObject({ stdout: "late\n", end: { exitCode: 5 } });
    expect(await starter.toEnd()).toMatchObject({ stdout: "early\nlate\n", end: { exitCode: 5 } });
  });

  test("who comes late still learns the end, by pid and by tag", async () => {
    const tag = `ended-${codec.binary}`;
    const { pid } = await observe(client().start({ ...shell("exit 7"), tag }));
    for (const process of [byPid(pid), byTag(tag)]) {
      expect(await observe(client().connect({ process }))).toMatchObject({ pid, end: { exitCode: 7 } });
    }
  });

  test.each([
    ["SIGHUP", 1],
    ["SIGINT", 2],
    ["SIGQUIT", 3],
    ["SIGKILL", 9],
    ["SIGUSR1", 10],
    ["SIGUSR2", 12],
    ["SIGTERM", 15],
  ] as const)("%s reaches the process", async (name, number) => {
    const events = new ProcessEvents(client().start({ process: { cmd: "sleep", args: ["60"] } }));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    await client().sendSignal({ process: byPid(pid), signal: processProto.Signal[name] });
    expect((await events.toEnd()).end).toMatchObject({ exitCode: 128 + number, exited: false });
  });

  test("the request's deadline ends the process, and says so", async () => {
    const events = client().start(shell("sleep 60 & sleep 60; true"), { headers: { "Connect-Timeout-Ms": "400" } });
    const { end } = await observe(events);
    expect(end).toMatchObject({ exitCode: 137, exited: false, timedOut: true, status: "signal: killed" });
  });
});

test("SIGSTOP and SIGCONT suspend and continue a process", async () => {
  const client = agent.process();
  const events = new ProcessEvents(client.start(shell("while read line; do echo $line; done")));
  const { pid } = await events.until((seen) => seen.pid !== 0);
  const state = async () => /\) (\S) /.exec(await readFile(`/proc/${pid}/stat`, "utf8"))?.[1];
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGSTOP });
  await eventually(async () => (await state()) === "T");
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGCONT });
  await eventually(async () => (await state()) === "S");
  await client.closeStdin({ process: byPid(pid) });
  expect((await events.toEnd()).end?.exitCode).toBe(0);
});

test("a kill takes everything the command started along, also what left its process group", async () => {
  const client = agent.process();
  const script = `sleep 61 & echo $!; setpgid() { python3 -c 'import os,time; os.setpgid(0, 0); print(os.getpid(), flush=True); time.sleep(62)'; }; setpgid & wait`;
  const events = new ProcessEvents(client.start(shell(script)));
  const { pid, stdout } = await events.until((seen) => seen.stdout.split("\n").length > 2);
  const children = stdout.trim().split("\n").map(Number);
  expect(children).toHaveLength(2);
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
  expect((await events.toEnd()).end).toMatchObject({ exitCode: 137, timedOut: false, oomKilled: false });
  for (const child of children) await eventually(async () => !(await alive(child)));
});

test("a process outlives the client that started it", async () => {
  const client = agent.process();
  const abort = new AbortController();
  const events = new ProcessEvents(
    client.start(shell("sleep 0.5; echo still here; sleep 60"), { signal: abort.signal }),
  );
  const { pid } = await events.until((seen) => seen.pid !== 0);
  abort.abort();
  await expect(events.toEnd()).rejects.toMatchObject({ code: Code.Canceled });
  const joined = new ProcessEvents(client.connect({ process: byPid(pid) }));
  expect((await joined.until((seen) => seen.stdout !== "")).stdout).toBe("still here\n");
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
});

test("a child left behind holds the end back only shortly, and keeps its output open", async () => {
  const script = `sh -c 'sleep 3; echo from behind; echo $? >${user.home}/survived' & echo main`;
  const seen = await observe(agent.process().start(shell(script)));
  expect(seen).toMatchObject({ stdout: "main\n", end: { exitCode: 0 } });
  await expect(readFile(agent.outside(`${user.home}/survived`))).rejects.toMatchObject({ code: "ENOENT" });
  await eventually(
    async () => (await readFile(agent.outside(`${user.home}/survived`), "utf8").catch(() => "")) === "0\n",
  );
});

test("what a short-lived child prints after the command is still told", async () => {
  const seen = await observe(agent.process().start(shell("(sleep 0.2; echo child) & echo main")));
  expect(seen.stdout).toBe("main\nchild\n");
});

test("the deadline of a connection ends that stream, not the process", async () => {
  const client = agent.process();
  const events = new ProcessEvents(client.start({ process: { cmd: "sleep", args: ["60"] } }));
  const { pid } = await events.until((seen) => seen.pid !== 0);
  const joined = observe(client.connect({ process: byPid(pid) }, { headers: { "Connect-Timeout-Ms": "200" } }));
  await expect(joined).rejects.toMatchObject({ code: Code.DeadlineExceeded });
  expect(await alive(pid)).toBe(true);
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
  await events.toEnd();
});

test("an idle stream is kept alive as often as asked", async () => {
  const headers = { "Keepalive-Ping-Interval": "1" };
  const seen = await observe(agent.process().start(shell("sleep 2.5"), { headers }));
  expect(seen.keepalives).toBe(2);
});

test("kept output is replayed to who asks for it", async () => {
  const client = agent.process();
  const starter = new ProcessEvents(
    client.start(shell("head -c 100000 /dev/zero | tr '\\0' x; echo end; exec sleep 60")),
  );
  const { pid } = await starter.until((seen) => seen.stdout.endsWith("end\n"));
  const joined = new ProcessEvents(
    client.connect({ process: byPid(pid) }, { headers: { "Wrenn-Replay-Output": "true" } }),
  );
  const { stdout } = await joined.until((seen) => seen.stdout.endsWith("end\n"));
  expect(stdout).toBe("x".repeat(65_536 - 4) + "end\n");
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
});

describe("a process runs", () => {
  const environment = async (output: Promise<{ stdout: string }>) =>
    new Map(
      (await output).stdout.split("\n").map((line): [string, string] => {
        const [key = "", ...value] = line.split("=");
        return [key, value.join("=")];
      }),
    );

  test("as the default user, in its home, with its groups and a clean state", async () => {
    const script =
      "id -u; id -g; id -G; pwd; umask; nice; cat /proc/self/oom_score_adj; ulimit -Sn; ls /proc/self/fd | wc -l";
    const { stdout } = await observe(agent.process().start(shell(script)));
    // ls has 0, 1, 2 and the directory it reads.
    expect(stdout.split("\n").slice(0, -1)).toEqual([
      `${user.uid}`,
      `${user.gid}`,
      `${user.gid} 43299`,
      user.home,
      "0022",
      "0",
      "0",
      "1024",
      "4",
    ]);
  });

  test("as the user named by basic authentication", async () => {
    const { stdout } = await observe(agent.process({ user: "root" }).start(shell("id -un; pwd")));
    expect(stdout).toBe("root\n/root\n");
  });

  test("in a session and process group of its own", async () => {
    const seen = await observe(agent.process().start(shell("exec ps -o sid=,pgid= -p $$")));
    expect(seen.stdout.trim().split(/\s+/).map(Number)).toEqual([seen.pid, seen.pid]);
  });

  test("dying of a broken pipe like under any shell", async () => {
    const seen = await observe(agent.process().start(shell("yes | head -n 1")));
    expect(seen).toMatchObject({ stdout: "y\n", stderr: "" });
  });

  test("with the usual variables, then the sandbox's, then its own", async () => {
    await agent.fetch("/init", {
      method: "POST",
      body: JSON.stringify({ envVars: { SANDBOX: "1", BOTH: "sandbox" } }),
    });
    const envs = { OWN: "a=b", BOTH: "own" };
    const seen = await environment(observe(agent.process().start({ process: { cmd: "env", envs } })));
    expect(Object.fromEntries(seen)).toMatchObject({
      HOME: user.home,
      USER: user.name,
      LOGNAME: user.name,
      SHELL: "/bin/bash",
      LANG: "C.UTF-8",
      SANDBOX: "1",
      BOTH: "own",
      OWN: "a=b",
    });
    expect(seen.get("PATH")).toContain("/usr/bin");
    await agent.fetch("/init", { method: "POST", body: JSON.stringify({ envVars: {} }) });
  });

  test("where it is asked to, also below the home directory", async () => {
    for (const [cwd, expected] of [
      ["/usr/lib", "/usr/lib"],
      ["~", user.home],
      [".", user.home],
      ["../other", "/home/other"],
    ]) {
      const { stdout } = await observe(
        agent.process({ user: "user" }).start(shell("pwd", cwd === undefined ? {} : { cwd })),
      );
      expect(stdout).toBe(`${expected}\n`);
    }
  });
});

describe("what cannot be done is refused", () => {
  const failure = async (action: Promise<unknown>) =>
    ConnectError.from(
      await action.then(
        () => expect.fail("it worked"),
        (error: unknown) => error,
      ),
    );
  const nowhere = { process: byPid(4_000_000) };

  test.each([
    [
      "an unknown command",
      { process: { cmd: "no-such-command" } },
      Code.NotFound,
      "command 'no-such-command' not found",
    ],
    ["an unknown path", { process: { cmd: "/no/such" } }, Code.NotFound, "command '/no/such' not found"],
    ["no command", { process: { cmd: "" } }, Code.InvalidArgument, "the command is empty"],
    ["no process", {}, Code.InvalidArgument, "names no process"],
    ["a file that is not a program", { process: { cmd: "/etc/passwd" } }, Code.PermissionDenied, "cannot be executed"],
    ["a missing directory", shell("true", { cwd: "/missing" }), Code.InvalidArgument, "cwd '/missing' does not exist"],
    ["a file as directory", shell("true", { cwd: "/etc/passwd" }), Code.InvalidArgument, "is not a directory"],
    [
      "a directory of others",
      shell("true", { cwd: "/root" }),
      Code.PermissionDenied,
      "cannot be entered by user 'user'",
    ],
    [
      "a variable without a name",
      shell("true", { envs: { "": "x" } }),
      Code.InvalidArgument,
      "cannot be the name of a variable",
    ],
    ["a variable with NUL", shell("true", { envs: { A: "x\0y" } }), Code.InvalidArgument, "cannot hold a NUL"],
    ["an argument with NUL", { process: { cmd: "true", args: ["\0"] } }, Code.InvalidArgument, "cannot hold a NUL"],
    [
      "arguments beyond the kernel's bound",
      { process: { cmd: "true", args: ["x".repeat(200_000)] } },
      Code.InvalidArgument,
      "too large for the kernel",
    ],
  ])("start: %s", async (_, request, code, message) => {
    const error = await failure(observe(agent.process().start(request)));
    expect(error.code).toBe(code);
    expect(error.rawMessage).toContain(message);
  });

  test("start: a user whose home is missing, unless it says where to run", async () => {
    const client = agent.process({ user: "homeless" });
    expect(await failure(observe(client.start(shell("true"))))).toMatchObject({ code: Code.InvalidArgument });
    expect((await observe(client.start(shell("id -un", { cwd: "/" })))).stdout).toBe("homeless\n");
  });

  test("start: an unknown user", async () => {
    const error = await failure(observe(agent.process({ user: "nobody-here" }).start(shell("true"))));
    expect(error).toMatchObject({ code: Code.Unauthenticated, rawMessage: "invalid username: 'nobody-here'" });
  });

  test("anything asked of a process that is not there", async () => {
    const client = agent.process();
    const input = { case: "stdin", value: new Uint8Array() } as const;
    const failures = await Promise.all(
      [
        observe(client.connect(nowhere)),
        client.update(nowhere),
        client.sendInput({ ...nowhere, input: { input } }),
        client.sendSignal({ ...nowhere, signal: processProto.Signal.SIGTERM }),
        client.closeStdin(nowhere),
      ].map(failure),
    );
    for (const error of failures) {
      expect(error).toMatchObject({
        code: Code.NotFound,
        rawMessage: "process with pid 4000000 not found",
      });
    }
    expect(await failure(observe(client.connect({ process: byTag("no-tag") })))).toMatchObject({
      code: Code.NotFound,
      rawMessage: "process with tag no-tag not found",
    });
    expect(await failure(observe(client.connect({})))).toMatchObject({ code: Code.InvalidArgument });
  });

  test("signalling, writing to and resizing a process that has ended", async () => {
    const client = agent.process();
    const { pid } = await observe(client.start(shell("true")));
    await sleep(50);
    const failures = await Promise.all(
      [
        client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL }),
        client.sendInput({ process: byPid(pid), input: { input: { case: "stdin", value: new Uint8Array(1) } } }),
        client.update({ process: byPid(pid) }),
      ].map(failure),
    );
    for (const error of failures) {
      expect(error).toMatchObject({ code: Code.NotFound });
    }
  });

  test("a signal that is none of the protocol's", async () => {
    const client = agent.process();
    const events = new ProcessEvents(client.start({ process: { cmd: "sleep", args: ["60"] } }));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    const unspecified = client.sendSignal({ process: byPid(pid), signal: processProto.Signal.UNSPECIFIED });
    expect(await failure(unspecified)).toMatchObject({ code: Code.Unimplemented });
    await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
  });
});
