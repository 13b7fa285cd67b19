import { createHash, randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { streamLimits } from "@wrenn/contract";
import { eventually } from "@wrenn/control-plane/testing";
import fc from "fast-check";
import { afterEach, expect, test } from "vitest";
import { alive } from "../guest-agent/process-events.ts";
import { endProcesses, useApiServer } from "../harness/api-server.ts";
import { StreamClient } from "../harness/stream-client.ts";
import type { OpenOptions } from "../harness/stream-client.ts";

const api = useApiServer();
const clients: StreamClient[] = [];

afterEach(async () => {
  for (const client of clients.splice(0)) client.webSocket.terminate();
  await endProcesses(api().guest);
});

async function open(options: OpenOptions = {}): Promise<StreamClient> {
  const client = await StreamClient.open(api().server, `/v1/sandboxes/${api().sandbox.id}/exec/stream`, options);
  clients.push(client);
  return client;
}

async function start(ask: Record<string, unknown>, options: OpenOptions = {}): Promise<StreamClient> {
  const client = await open(options);
  client.say({ type: "start", ...ask });
  return client;
}

async function shell(script: string, more: Record<string, unknown> = {}, options?: OpenOptions): Promise<StreamClient> {
  return start({ cmd: "sh", args: ["-c", script], ...more }, options);
}

async function running(): Promise<{ pid: number }[]> {
  return (await api().guest.process().list({})).processes;
}

async function untilNoneRuns(): Promise<void> {
  await eventually(async () => expect(await running()).toEqual([]));
}

test("a command's output comes on its channels, then its end, then the connection is closed", async () => {
  const client = await shell("echo out; echo err >&2; exit 3");
  expect(await client.closed()).toEqual({
    code: 1000,
    last: { type: "exit", exit_code: 3, exited: true, timed_out: false, oom_killed: false },
  });
  expect(client.messages.map(({ type }) => type)).toEqual(["started", "exit"]);
  expect(client.messages[0]).toEqual({ type: "started", pid: expect.any(Number), tag: null });
  expect([client.stdout.toString(), client.stderr.toString()]).toEqual(["out\n", "err\n"]);
});

test("output comes while the command runs, and input goes the other way", async () => {
  const client = await start({ cmd: "cat" });
  await client.input("first\n");
  await client.printed("first\n");
  await client.input("second\n");
  await client.printed("second\n");
  client.say({ type: "close_stdin" });
  expect((await client.message("exit")).exit_code).toBe(0);
});

test("user, directory, variables and a timeout are those that were asked for", async () => {
  const client = await shell('id -un; pwd; echo "$GREETING"; sleep 1000', {
    user: "user",
    cwd: "/usr",
    envs: { GREETING: "hello" },
    timeout_seconds: 0.5,
  });
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 137, timed_out: true });
  expect(client.stdout.toString()).toBe("user\n/usr\nhello\n");
});

test("a streamed command leaves its connection into the sandbox to the next one", async () => {
  const { agent } = api().server;
  const stream = async (): Promise<void> => {
    const client = await shell("echo one; echo two");
    expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
  };
  await stream();
  const opened = agent.tunnelsOpened;
  for (let count = 0; count < 5; count++) await stream();
  expect(agent.tunnelsOpened).toBe(opened);
});

test("signals reach the command", async () => {
  const client = await shell("trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.02; done");
  await client.printed("ready");
  client.say({ type: "signal", signal: "SIGINT" });
  expect((await client.message("exit")).exit_code).toBe(5);
  expect(client.stdout.toString()).toBe("ready\ncaught\n");
});

test("a command that does not read its input can be interrupted", async () => {
  const client = await start({ cmd: "sleep", args: ["1000"] });
  await client.input(randomBytes(300_000));
  await client.input(randomBytes(300_000));
  client.say({ type: "signal", signal: "SIGINT" });
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 130, exited: false });
});

test("any bytes come back the same, however they are cut into messages, by a client that reads slowly", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 2_000 }), { maxLength: 20 }), async (pieces) => {
      const client = await start({ cmd: "cat" });
      for (const piece of pieces) {
        await client.input(piece);
        client.webSocket.pause();
        setImmediate(() => client.webSocket.resume());
      }
      client.say({ type: "close_stdin" });
      expect((await client.closed()).code).toBe(1000);
      expect(client.stdout.equals(Buffer.concat(pieces))).toBe(true);
    }),
    { numRuns: 25 },
  );
});

test("megabytes come back the same through a client that takes breaks", async () => {
  const hash = createHash("sha256");
  let received = 0;
  const onStdout = (bytes: Buffer): void => {
    hash.update(bytes);
    received += bytes.length;
    if (received % 7 === 0) {
      client.webSocket.pause();
      setTimeout(() => client.webSocket.resume(), 2);
    }
  };
  const client: StreamClient = await start({ cmd: "cat" }, { onStdout });
  const sent = createHash("sha256");
  for (let at = 0; at < 40; at += 1) {
    const bytes = randomBytes(1 + 7 * at * 10_000).subarray(0, streamLimits.messageBytes - 1);
    sent.update(bytes);
    await client.input(bytes);
  }
  client.say({ type: "close_stdin" });
  expect((await client.closed()).code).toBe(1000);
  expect(hash.digest("hex")).toBe(sent.digest("hex"));
});

test("a client that does not read holds the command back, and loses nothing", async () => {
  const total = 300_000_000;
  let received = 0;
  const onStdout = (bytes: Buffer): void => {
    received += bytes.length;
  };
  const client = await start({ cmd: "head", args: ["-c", String(total), "/dev/zero"] }, { onStdout });
  const pid = await client.started();
  client.webSocket.pause();
  const written = async (): Promise<number> =>
    Number(/^wchar: (\d+)$/m.exec(await readFile(`/proc/${pid}/io`, "utf8"))?.[1]);
  // It has stopped when it has written nothing for a while.
  let before = -1;
  let still = 0;
  while (still < 10) {
    const now = await written();
    still = now === before ? still + 1 : 0;
    before = now;
    await sleep(50);
  }
  // What pipes and sockets on the way hold; the rest would have to be in the server's memory.
  expect(before).toBeLessThan(60_000_000);
  client.webSocket.resume();
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
  expect(received).toBe(total);
});

test("a client that sends more than the command reads is held back, and loses nothing", async () => {
  const client = await shell("kill -STOP $$; exec sha256sum");
  const pid = await client.started();
  const sent = createHash("sha256");
  const piece = randomBytes(1_000_000);
  for (let at = 0; at < 60; at += 1) {
    sent.update(piece);
    void client.input(piece);
  }
  client.say({ type: "close_stdin" });
  // Most of it stays with the client: the server takes no more than it may hold.
  await eventually(() => expect(client.webSocket.bufferedAmount).toBeLessThan(59_000_000));
  let before = -1;
  for (let still = 0; still < 10; still = client.webSocket.bufferedAmount === before ? still + 1 : 0) {
    before = client.webSocket.bufferedAmount;
    await sleep(50);
  }
  expect(before).toBeGreaterThan(30_000_000);
  process.kill(pid, "SIGCONT");
  expect((await client.closed()).code).toBe(1000);
  expect(client.stdout.toString()).toContain(sent.digest("hex"));
});

test("fifty at once, some of them slow, lose nothing", async () => {
  const program = [
    "import random, sys",
    "source = random.Random(int(sys.argv[1]))",
    "for _ in range(100):",
    "    sys.stdout.buffer.write(source.randbytes(20000))",
    "    sys.stdout.buffer.flush()",
  ].join("\n");
  const streams = Array.from({ length: 50 }, async (_, seed) => {
    const isSlow = seed % 4 === 0;
    const hash = createHash("sha256");
    const onStdout = (bytes: Buffer): void => {
      hash.update(bytes);
      if (!isSlow) return;
      client.webSocket.pause();
      setTimeout(() => client.webSocket.resume(), 3);
    };
    const client: StreamClient = await start({ cmd: "python3", args: ["-c", program, String(seed)] }, { onStdout });
    const { code, last } = await client.closed();
    return { code, last, hash: hash.digest("hex") };
  });
  const inGuest = Array.from({ length: 50 }, async (_, seed) => {
    const client = await start({
      cmd: "sh",
      args: ["-c", 'python3 -c "$1" $2 | sha256sum', "sh", program, String(seed)],
    });
    const { code, last } = await client.closed();
    return { code, last, hash: client.stdout.toString().slice(0, 64) };
  });
  expect(await Promise.all(streams)).toEqual(await Promise.all(inGuest));
});

test("a command without a tag ends with its client", async () => {
  const client = await shell("trap '' HUP TERM; sleep 1000 & echo $!; wait");
  const child = Number(await client.printed(/\d+\n/));
  const pid = await client.started();
  expect([await alive(pid), await alive(child)]).toEqual([true, true]);
  await client.vanish();
  for (const each of [pid, child]) await eventually(async () => expect(await alive(each)).toBe(false));
});

test("a command with a tag outlives its client", async () => {
  const tag = randomUUID();
  const client = await shell("read line; sleep 1000", { tag });
  const pid = await client.started();
  expect(client.messages[0]).toEqual({ type: "started", pid, tag });
  client.webSocket.close();
  expect(await client.closed()).toMatchObject({ code: 1005 });
  await eventually(() => expect(api().server.logged.join("")).toContain('"outcome":"client_left"'));
  expect(await alive(pid)).toBe(true);
});

test("clients that leave at any moment leave no command without a tag", async () => {
  const leave = [
    async (client: StreamClient) => client.webSocket.close(),
    async (client: StreamClient) => client.webSocket.terminate(),
  ];
  const points = [
    async () => open(),
    async () => start({ cmd: "sleep", args: ["1000"] }),
    async () => {
      const client = await start({ cmd: "sleep", args: ["1000"] });
      await new Promise((resolve) => setImmediate(resolve));
      return client;
    },
    async () => {
      const client = await start({ cmd: "sleep", args: ["1000"] });
      await client.started();
      return client;
    },
    // Its output waits for it.
    async () => {
      const client = await start({ cmd: "yes" });
      await client.started();
      client.webSocket.pause();
      await eventually(() => expect(client.webSocket.isPaused).toBe(true));
      return client;
    },
    // Its input waits for the command.
    async () => {
      const client = await start({ cmd: "sleep", args: ["1000"] });
      for (let at = 0; at < 8; at += 1) void client.input(randomBytes(100_000));
      await client.started();
      return client;
    },
  ];
  for (const point of points) for (const go of leave) await go(await point());
  await untilNoneRuns();
});

test("a client that has gone while the server held it back is found out", async () => {
  const { server } = api();
  const replica = await server.startReplica({
    bounds: { streams: { openingMs: 10_000, pingMs: 100, pongMs: 10_000 } },
  });
  const client = await start({ cmd: "sleep", args: ["1000"] }, { url: replica.url });
  const pid = await client.started();
  for (let at = 0; at < 30; at += 1) void client.input(randomBytes(1_000_000));
  await eventually(() => expect(client.webSocket.bufferedAmount).toBeLessThan(29_000_000));
  await client.vanish();
  await eventually(async () => expect(await alive(pid)).toBe(false));
});

test("a client that answers no more is given up, and its command with it", async () => {
  const { server } = api();
  const replica = await server.startReplica({ bounds: { streams: { openingMs: 10_000, pingMs: 200, pongMs: 1_000 } } });
  const silent = await start({ cmd: "sleep", args: ["1000"] }, { url: replica.url, autoPong: false });
  const answering = await start({ cmd: "sleep", args: ["1001"] }, { url: replica.url });
  const [gone, there] = [await silent.started(), await answering.started()];
  expect((await silent.closed()).code).toBe(1006);
  await eventually(async () => expect(await alive(gone)).toBe(false));
  expect([await alive(there), answering.closeCode]).toEqual([true, undefined]);
});

test("a client that takes a long break, as behind a pager, is not given up and gets everything", async () => {
  const { server } = api();
  const replica = await server.startReplica({ bounds: { streams: { openingMs: 10_000, pingMs: 50, pongMs: 100 } } });
  const resting = await shell("head -c 20000000 /dev/zero; echo end >&2", {}, { url: replica.url });
  await resting.started();
  resting.webSocket.pause();
  const other = await start({ cmd: "sleep", args: ["1000"] }, { url: replica.url });
  await other.started();
  for (let pings = 0; pings < 15; pings += 1) await once(other.webSocket, "ping");
  resting.webSocket.resume();
  expect((await resting.closed()).code).toBe(1000);
  expect([resting.stdout.length, resting.stderr.toString()]).toEqual([20_000_000, "end\n"]);
});

test("streams are counted, by route and how they ended", async () => {
  await (await shell("true")).closed();
  await eventually(async () => {
    const metrics = await (await fetch(`${api().server.url}/metrics`)).text();
    expect(metrics).toMatch(/^wrenn_streams_total\{route="\/v1\/sandboxes\/:id\/exec\/stream",outcome="exit"\} \d+$/m);
    expect(metrics).toMatch(/^wrenn_streams_open\{route="\/v1\/sandboxes\/:id\/exec\/stream"\} 0$/m);
  });
});

test("input to a command that reads none, or no more, is dropped", async () => {
  const client = await shell("exec <&-; echo closed; sleep 0.2; echo done", {});
  await client.printed("closed");
  await client.input(randomBytes(200_000));
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
  const without = await shell("cat; echo done", { stdin: false });
  await without.input("unread");
  expect((await without.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
  expect(without.stdout.toString()).toBe("done\n");
});

test.each([
  ["what is no JSON", "start"],
  ["no object", "[]"],
  ["another type", '{"type":"attach","tag":"x"}'],
  ["a field that there is not", '{"type":"start","cmd":"true","shell":true}'],
  ["no command", '{"type":"start"}'],
  ["bytes", Buffer.from('{"type":"start","cmd":"true"}')],
])("a first message with %s is refused", async (_what, message) => {
  const client = await open();
  client.webSocket.send(message);
  expect(await client.failure()).toEqual([1008, "invalid_message"]);
});

test("a wrong message later ends the conversation, and the command", async () => {
  for (const message of ["{", '{"type":"start","cmd":"true"}', Buffer.of(1, 2, 3), Buffer.alloc(0)]) {
    const client = await start({ cmd: "sleep", args: ["1000"] });
    await client.started();
    client.webSocket.send(message);
    expect(await client.failure()).toEqual([1008, "invalid_message"]);
  }
  const client = await start({ cmd: "sleep", args: ["1000"] });
  client.say({ type: "resize", cols: 80, rows: 24 });
  expect(await client.failure()).toEqual([1008, "guest_refused"]);
  await untilNoneRuns();
});

test("a message that is too large is refused, and the command ends", async () => {
  const client = await start({ cmd: "cat" });
  await client.started();
  await client.input(Buffer.alloc(streamLimits.messageBytes - 1));
  await eventually(() => expect(client.stdout).toHaveLength(streamLimits.messageBytes - 1));
  await client.input(Buffer.alloc(streamLimits.messageBytes));
  expect(await client.failure()).toEqual([1009, "message_too_large"]);
  await untilNoneRuns();
});

test.each([
  ["a program that there is not", { cmd: "no-such-program" }, "command_not_found"],
  ["a file that is no program", { cmd: "/etc/passwd" }, "command_not_executable"],
  ["a user that there is not", { cmd: "true", user: "nobody-at-all" }, "guest_refused"],
])("%s is an error of its own", async (_what, ask, code) => {
  const client = await start(ask);
  expect(await client.failure()).toEqual([1008, code]);
  const [error] = client.messages;
  expect(error).toMatchObject({ error: { suggestion: expect.any(String), request_id: expect.any(String) } });
});

test("a tag that a process has is refused", async () => {
  const tag = randomUUID();
  await (await start({ cmd: "sleep", args: ["1000"], tag })).started();
  expect(await (await start({ cmd: "true", tag })).failure()).toEqual([1008, "process_tag_taken"]);
});

test("a sandbox that dies meanwhile gives why it died", async () => {
  const { server } = api();
  const doomed = await server.create();
  const client = await StreamClient.open(server, `/v1/sandboxes/${doomed.id}/exec/stream`);
  client.say({ type: "start", cmd: "sleep", args: ["1000"] });
  await client.started();
  await server.agent.pause();
  server.agent.kill(doomed.uuid, "guest_panicked", "Kernel panic - not syncing");
  await server.agent.resume();
  expect(await client.failure()).toEqual([1011, "guest_panicked"]);
});

test("a host agent that restarts ends the stream, not the command", async () => {
  const client = await start({ cmd: "sleep", args: ["1000"] });
  const pid = await client.started();
  await api().server.agent.pause();
  await api().server.agent.resume();
  expect(await client.failure()).toEqual([1011, "connection_lost"]);
  expect(await alive(pid)).toBe(true);
});

test("a server that stops says so, and the command goes on", async () => {
  const { server, sandbox } = api();
  const replica = await server.startReplica({ bounds: { drainMs: 200 } });
  const client = await shell("echo begun; read line; echo $line", {}, { url: replica.url });
  const pid = await client.started();
  await client.printed("begun");
  const stopped = replica.stop();
  // A moment is left to those who are about to end.
  await client.input("");
  expect(await client.failure()).toEqual([1001, "shutting_down"]);
  await stopped;
  expect(await alive(pid)).toBe(true);
  const next = await StreamClient.open(server, `/v1/sandboxes/${sandbox.id}/processes/${pid}/stream`);
  await next.input("hello again\n");
  expect((await next.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
  expect(next.stdout.toString()).toBe("begun\nhello again\n");
});
