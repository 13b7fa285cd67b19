/** Processes that somebody comes back to: by tag, by several at once, to a terminal that has to be drawn again. */
import { Code, ConnectError } from "@connectrpc/connect";
import { processProto } from "@wrenn/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGuestAgent, type GuestAgent } from "./harness.ts";
import { byPid, byTag, eventually, observe, ProcessEvents, shell } from "./process-events.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

const replay = { headers: { "Wrenn-Replay-Output": "true" } };
const bash = { cmd: "/bin/bash", args: ["--norc", "-i"], envs: { PS1: "$ " } };

function typed(text: string) {
  return { input: { case: "pty", value: Buffer.from(text) } } as const;
}

function kill(tag: string) {
  return agent.process().sendSignal({ process: byTag(tag), signal: processProto.Signal.SIGKILL });
}

describe("a tag", () => {
  test("of a running process is refused to another, and free again once that has ended", async () => {
    const client = agent.process();
    const first = new ProcessEvents(client.start({ ...shell("exec sleep 60"), tag: "once" }));
    const { pid } = await first.until((seen) => seen.pid !== 0);
    const second = ConnectError.from(
      await observe(client.start({ ...shell("true"), tag: "once" })).catch((error: unknown) => error),
    );
    expect([second.code, second.rawMessage]).toEqual([
      Code.AlreadyExists,
      "a process with tag once is running already",
    ]);
    expect((await client.list({})).processes.filter((process) => process.tag === "once")).toMatchObject([{ pid }]);
    await kill("once");
    await first.toEnd();
    expect((await observe(client.start({ ...shell("echo again"), tag: "once" }))).stdout).toBe("again\n");
  });

  test("asked for by many at once is given to one", async () => {
    const client = agent.process();
    const starts = Array.from({ length: 20 }, () => {
      const events = new ProcessEvents(client.start({ ...shell("exec sleep 60"), tag: "raced" }));
      return events.until((seen) => seen.pid !== 0);
    });
    const outcomes = await Promise.allSettled(starts);
    const refused = outcomes.filter((outcome) => outcome.status === "rejected");
    expect(refused.map(({ reason }) => ConnectError.from(reason).code)).toEqual(
      Array.from({ length: 19 }, () => Code.AlreadyExists),
    );
    await kill("raced");
  });

  test("of a start that failed is not kept", async () => {
    const client = agent.process();
    const failed = observe(client.start({ process: { cmd: "no-such-command" }, tag: "failed" }));
    await expect(failed).rejects.toMatchObject({ code: Code.NotFound });
    expect((await observe(client.start({ ...shell("true"), tag: "failed" }))).end?.exitCode).toBe(0);
  });

  test("that is empty is none", async () => {
    const client = agent.process();
    const events = new ProcessEvents(client.start({ ...shell("exec sleep 60"), tag: "" }));
    const { pid } = await events.until((seen) => seen.pid !== 0);
    expect((await observe(client.start({ ...shell("true"), tag: "" }))).end?.exitCode).toBe(0);
    expect((await client.list({})).processes.find((process) => process.pid === pid)?.tag).toBeUndefined();
    await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
  });
});

describe("a terminal that is attached to again", () => {
  test("shows what it showed, and goes on", async () => {
    const client = agent.process();
    const gone = new AbortController();
    const starter = new ProcessEvents(client.start({ process: bash, pty: {}, tag: "kept" }, { signal: gone.signal }));
    await starter.until((seen) => seen.pty.includes("$ "));
    await client.sendInput({ process: byTag("kept"), input: typed("X=there; echo he$((1+1))re\r") });
    await starter.until((seen) => seen.pty.includes("he2re\r\n") && seen.pty.endsWith("$ "));
    gone.abort();
    await expect(starter.toEnd()).rejects.toMatchObject({ code: Code.Canceled });

    const back = new ProcessEvents(client.connect({ process: byTag("kept") }, replay));
    expect((await back.until((seen) => seen.pty.endsWith("$ "))).pty).toBe(starter.seen.pty);
    await client.sendInput({ process: byTag("kept"), input: typed("echo =$X=\r") });
    await back.until((seen) => seen.pty.includes("=there=\r\n"));
    await kill("kept");
    expect((await back.toEnd()).end?.exitCode).toBe(137);
  });

  test("begins with a whole line when it has shown more than is kept", async () => {
    const client = agent.process();
    const script = String.raw`for i in $(seq 3000); do printf '\033[31mline %06d of a terminal\033[0m\n' $i; done; echo end; exec sleep 60`;
    const starter = new ProcessEvents(client.start({ ...shell(script), pty: {}, tag: "long" }));
    await starter.until((seen) => seen.pty.includes("end\r\n"));
    const back = new ProcessEvents(client.connect({ process: byTag("long") }, replay));
    const { pty } = await back.until((seen) => seen.pty.includes("end\r\n"));
    expect(pty.slice(0, pty.indexOf("\n") + 1).replace(/\d{6}/, "N")).toBe(
      "\u001B[31mline N of a terminal\u001B[0m\r\n",
    );
    expect(pty.length).toBeGreaterThan(60_000);
    expect(starter.seen.pty.endsWith(pty)).toBe(true);
    await kill("long");
  });

  test("is drawn again by what fills it when it is told the size that it has", async () => {
    const client = agent.process();
    const size = { cols: 90, rows: 30 };
    const script = "trap 'echo drawn: $(stty size)' WINCH; echo ready; while :; do sleep 0.05; done";
    const events = new ProcessEvents(client.start({ ...shell(script), pty: { size }, tag: "full" }));
    await events.until((seen) => seen.pty.includes("ready"));
    await client.update({ process: byTag("full"), pty: { size } });
    const { pty } = await events.until((seen) => seen.pty.includes("drawn: 30 90\r\n"));
    expect(pty).toBe("ready\r\ndrawn: 30 90\r\n");
    await kill("full");
  });

  test("by two at once is the same for both, and takes what both type", async () => {
    const client = agent.process();
    const first = new ProcessEvents(client.start({ process: { cmd: "cat" }, pty: {}, tag: "shared" }));
    await first.until((seen) => seen.pid !== 0);
    const second = new ProcessEvents(client.connect({ process: byTag("shared") }, replay));
    await second.until((seen) => seen.pid !== 0);
    const lines = Array.from({ length: 20 }, (_, index) => `line ${index}\r`);
    await Promise.all(lines.map((line) => client.sendInput({ process: byTag("shared"), input: typed(line) })));
    // Each line is there as it is echoed and as it is printed, neither cut by another.
    const all = (seen: { pty: string }) => lines.every((line) => seen.pty.split(line).length > 2);
    await Promise.all([first.until(all), second.until(all)]);
    await kill("shared");
    const [one, two] = [await first.toEnd(), await second.toEnd()];
    expect(one.pty).toBe(two.pty);
    expect([one.end?.exitCode, two.end?.exitCode]).toEqual([137, 137]);
  });
});

test("a signal reaches the whole process group", async () => {
  const client = agent.process();
  const script = `trap 'echo parent' USR1; (trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.05; done) & while :; do sleep 0.05; done`;
  const events = new ProcessEvents(client.start({ ...shell(script), tag: "group" }));
  await events.until((seen) => seen.stdout.includes("ready"));
  await client.sendSignal({ process: byTag("group"), signal: processProto.Signal.SIGUSR1 });
  const { stdout } = await events.until((seen) => seen.stdout.includes("child") && seen.stdout.includes("parent"));
  expect(stdout.split("\n").sort()).toEqual(["", "child", "parent", "ready"]);
  await kill("group");
});

test("a process that has ended is neither listed nor signalled while its output is still being read", async () => {
  const client = agent.process();
  const abort = new AbortController();
  // More than all buffers on the way, to a reader that stops after the first bytes.
  const script = "head -c 33554432 /dev/zero";
  const events = new ProcessEvents(client.start({ ...shell(script), tag: "unread" }, { signal: abort.signal }));
  const { pid } = await events.until((seen) => seen.stdout !== "");
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
  await eventually(async () => (await client.list({})).processes.every((process) => process.pid !== pid));
  const again = client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGTERM });
  await expect(again).rejects.toMatchObject({ code: Code.NotFound });
  // Its tag is free, and its end is told behind all that it has written.
  expect((await observe(client.start({ ...shell("true"), tag: "unread" }))).end?.exitCode).toBe(0);
  expect((await events.toEnd()).end).toMatchObject({ exitCode: 137 });
});
