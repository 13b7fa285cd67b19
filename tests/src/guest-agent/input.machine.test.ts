import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { create } from "@bufbuild/protobuf";
import { processProto } from "@wrenn/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGuestAgent, type GuestAgent } from "./harness.ts";
import { alive, byPid, eventually, observe, ProcessEvents, shell } from "./process-events.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

function stdin(text: string | Uint8Array) {
  return { input: { case: "stdin", value: typeof text === "string" ? Buffer.from(text) : text } } as const;
}

function pty(text: string) {
  return { input: { case: "pty", value: Buffer.from(text) } } as const;
}

describe.each([{ binary: false }, { binary: true }])("with binary messages: $binary", (codec) => {
  const client = () => agent.process(codec);
  const start = async (request: Parameters<ReturnType<typeof client>["start"]>[0]) => {
    const events = new ProcessEvents(client().start(request));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    return { events, pid, process: byPid(pid) };
  };

  test("input is read in order, and end of file once it is closed", async () => {
    const { events, process } = await start({ process: { cmd: "cat" } });
    for (const word of ["one ", "two ", "three"]) await client().sendInput({ process, input: stdin(word) });
    await client().closeStdin({ process });
    expect(await events.toEnd()).toMatchObject({ stdout: "one two three", end: { exitCode: 0 } });
  });

  test("several MiB of input arrive whole while others are served", async () => {
    const go = `/home/go-${codec.binary}`;
    const { events, process } = await start(shell(`while [ ! -e ${go} ]; do sleep 0.05; done; sha256sum`));
    const input = Buffer.alloc(6 * 1024 * 1024, "0123456789abcdef");
    const sending = client().sendInput({ process, input: stdin(input) });
    await client().list({});
    await writeFile(agent.outside(go), "");
    await sending;
    await client().closeStdin({ process });
    expect((await events.toEnd()).stdout).toContain(createHash("sha256").update(input).digest("hex"));
  });

  test("input can be streamed", async () => {
    const { events, process } = await start({ process: { cmd: "cat" } });
    const request = (event: processProto.StreamInputRequest["event"]) =>
      create(processProto.StreamInputRequestSchema, { event });
    const requests = async function* () {
      yield request({ case: "start", value: create(processProto.StreamInputRequest_StartEventSchema, { process }) });
      for (const word of ["a", "b", "c"]) {
        const value = create(processProto.StreamInputRequest_DataEventSchema, { input: stdin(word) });
        yield request({ case: "data", value });
        yield request({ case: "keepalive", value: create(processProto.StreamInputRequest_KeepAliveSchema) });
      }
    };
    await client().streamInput(requests());
    await client().closeStdin({ process });
    expect((await events.toEnd()).stdout).toBe("abc");
  });

  test("a terminal has the size asked for, and another when it is changed", async () => {
    const script = "stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done";
    const { events, process } = await start({ ...shell(script), pty: { size: { cols: 101, rows: 33 } } });
    expect((await events.until((seen) => seen.pty.includes("ready"))).pty).toBe("33 101\r\nready\r\n");
    await client().update({ process, pty: { size: { cols: 40, rows: 7 } } });
    expect((await events.toEnd()).pty).toContain("7 40\r\n");
  });

  test("a terminal echoes, passes every byte, and interrupts on Ctrl+C", async () => {
    const { events, process } = await start({ process: { cmd: "cat" }, pty: {} });
    await client().sendInput({ process, input: pty("caf\u00e9\r") });
    await events.until((seen) => seen.pty.split("\n").length > 2);
    const line = Buffer.from("caf\u00e9\r\n").toString("latin1");
    expect(events.seen.pty).toBe(line + line);
    await client().sendInput({ process, input: pty("\u0003") });
    expect((await events.toEnd()).end).toMatchObject({ exitCode: 130, exited: false });
  });
});

test("a terminal is the process's own, of a known kind, and ends on Ctrl+D", async () => {
  const client = agent.process();
  const request = { process: { cmd: "/bin/bash", args: ["--norc", "-i"], envs: { PS1: "$ " } }, pty: {} };
  const events = new ProcessEvents(client.start(request));
  const { pid } = await events.until((seen) => seen.pty.includes("$ "));
  const process = byPid(pid);
  await client.sendInput({
    process,
    input: pty("echo $TERM $(stty size) $(tty | cut -c1-9); exec 3<>/dev/tty && echo contr$((1))olled\r"),
  });
  // With the next prompt: before it, the shell does not read keys yet.
  const atPrompt = await events.until((seen) => /contr1olled\r\n[^]*\$ $/.test(seen.pty));
  expect(atPrompt.pty).toContain("xterm-256color 24 80 /dev/pts/");
  await client.sendInput({ process, input: pty("\u0004") });
  expect((await events.toEnd()).end).toMatchObject({ exitCode: 0, exited: true });
});

test("killing a terminal's shell takes its jobs along", async () => {
  const client = agent.process();
  const events = new ProcessEvents(client.start({ process: { cmd: "/bin/bash", args: ["--norc", "-i"] }, pty: {} }));
  const { pid } = await events.until((seen) => seen.pid !== 0);
  await client.sendInput({ process: byPid(pid), input: pty("sleep 71 & echo job=$!=\r") });
  const { pty: printed } = await events.until((seen) => /job=\d+=/.test(seen.pty));
  const job = Number(/job=(\d+)=/.exec(printed)?.[1]);
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
  expect((await events.toEnd()).end).toMatchObject({ exitCode: 137 });
  await eventually(async () => !(await alive(job)));
});

test("a process started without input reads end of file at once", async () => {
  const seen = await observe(agent.process().start({ process: { cmd: "cat" }, stdin: false }));
  expect(seen).toMatchObject({ stdout: "", end: { exitCode: 0 } });
});

describe("input that cannot be taken is refused", () => {
  const failure = async (action: Promise<unknown>) =>
    ConnectError.from(
      await action.then(
        () => expect.fail("it worked"),
        (error: unknown) => error,
      ),
    );
  const start = async (request: Parameters<ReturnType<GuestAgent["process"]>["start"]>[0]) => {
    const events = new ProcessEvents(agent.process().start(request));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    return byPid(pid);
  };
  const kill = (process: ReturnType<typeof byPid>) =>
    agent.process().sendSignal({ process, signal: processProto.Signal.SIGKILL });

  test("to stdin that is closed", async () => {
    const process = await start(shell("exec sleep 60"));
    await agent.process().closeStdin({ process });
    await agent.process().closeStdin({ process });
    const error = await failure(agent.process().sendInput({ process, input: stdin("x") }));
    expect(error).toMatchObject({ code: Code.FailedPrecondition, rawMessage: "stdin is not enabled or is closed" });
    await kill(process);
  });

  test("to stdin that was never open", async () => {
    const process = await start({ ...shell("exec sleep 60"), stdin: false });
    expect(await failure(agent.process().sendInput({ process, input: stdin("x") }))).toMatchObject({
      code: Code.FailedPrecondition,
    });
    expect(await failure(agent.process().closeStdin({ process }))).toMatchObject({ code: Code.FailedPrecondition });
    await kill(process);
  });

  test("to a process that closed its end", async () => {
    const process = await start(shell("exec <&-; exec sleep 60"));
    await sleep(100);
    expect(await failure(agent.process().sendInput({ process, input: stdin("x") }))).toMatchObject({
      code: Code.FailedPrecondition,
    });
    await kill(process);
  });

  test("to a process that ends while it is being written to", async () => {
    const process = await start(shell("head -c 70000 >/dev/null; sleep 0.2"));
    const error = await failure(agent.process().sendInput({ process, input: stdin(new Uint8Array(1024 * 1024)) }));
    expect(error.code).toBe(Code.FailedPrecondition);
    expect(error.rawMessage).toContain("has ended");
  });

  test("to stdin of a terminal, to the terminal of a pipe, and without any", async () => {
    const client = agent.process();
    const terminal = await start({ ...shell("exec sleep 60"), pty: {} });
    const pipe = await start(shell("exec sleep 60"));
    const failures = await Promise.all(
      [
        client.sendInput({ process: terminal, input: stdin("x") }),
        client.sendInput({ process: pipe, input: pty("x") }),
        client.closeStdin({ process: terminal }),
        client.update({ process: pipe, pty: { size: { cols: 1, rows: 1 } } }),
      ].map(failure),
    );
    for (const error of failures) {
      expect(error).toMatchObject({ code: Code.FailedPrecondition });
    }
    expect(await failure(client.sendInput({ process: pipe }))).toMatchObject({ code: Code.InvalidArgument });
    await kill(terminal);
    await kill(pipe);
  });

  test("to a stream that does not begin with its process", async () => {
    const requests = async function* () {
      yield { event: { case: "data", value: { input: stdin("x") } } } as const;
    };
    expect(await failure(agent.process().streamInput(requests()))).toMatchObject({ code: Code.InvalidArgument });
  });
});
