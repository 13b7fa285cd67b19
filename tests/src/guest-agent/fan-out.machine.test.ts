import { connect, type Socket } from "node:net";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { processProto } from "@wrenn/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGuestAgent, type GuestAgent } from "./harness.ts";
import { byPid, ProcessEvents, shell } from "./process-events.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

/** Joins a process and never reads: what a client looks like that hangs. */
async function joinAndHang(pid: number): Promise<Socket> {
  const socket = connect({ port: agent.port, host: "127.0.0.1" });
  await once(socket, "connect");
  socket.pause();
  const message = Buffer.from(JSON.stringify({ process: { pid } }));
  const header = Buffer.alloc(5);
  header.writeUInt32BE(message.length, 1);
  const head = [
    "POST /process.Process/Connect HTTP/1.1",
    "Host: guest",
    "Content-Type: application/connect+json",
    `Content-Length: ${header.length + message.length}`,
  ].join("\r\n");
  socket.write(Buffer.concat([Buffer.from(`${head}\r\n\r\n`), header, message]));
  await sleep(200);
  return socket;
}

test("every subscriber gets every byte, however slowly it reads", async () => {
  const client = agent.process();
  const size = 3 * 1024 * 1024;
  const starter = new ProcessEvents(client.start(shell(`read go; head -c ${size} /dev/zero | tr '\\0' x`)));
  const { pid } = await starter.until((seen) => seen.pid !== 0);
  const slow = new ProcessEvents(client.connect({ process: byPid(pid) }));
  await slow.until((seen) => seen.pid !== 0);
  const input = { input: { case: "stdin", value: Buffer.from("\n") } } as const;
  await client.sendInput({ process: byPid(pid), input });
  const readSlowly = async () => {
    for (let wanted = 0; wanted < size; wanted += size / 8) {
      await slow.until((seen) => seen.stdout.length >= wanted);
      await sleep(50);
    }
    return slow.toEnd();
  };
  const [fast, lagging] = await Promise.all([starter.toEnd(), readSlowly()]);
  expect(fast.stdout.length).toBe(size);
  expect(lagging.stdout.length).toBe(size);
  expect(lagging.end?.exitCode).toBe(0);
});

describe.concurrent("a subscriber that takes nothing", () => {
  test("is given up after half a minute while others wait for it, and they go on", async ({ expect }) => {
    const client = agent.process();
    // Far more than sockets and backlog hold.
    const size = 64 * 1024 * 1024;
    const starter = new ProcessEvents(client.start(shell(`read go; head -c ${size} /dev/zero; echo done >&2`)));
    const { pid } = await starter.until((seen) => seen.pid !== 0);
    const hanging = await joinAndHang(pid);
    const input = { input: { case: "stdin", value: Buffer.from("\n") } } as const;
    const started = Date.now();
    await client.sendInput({ process: byPid(pid), input });
    const seen = await starter.toEnd();
    expect(seen.stdout.length).toBe(size);
    expect(seen.end?.exitCode).toBe(0);
    expect(Date.now() - started).toBeGreaterThan(25_000);

    let received = "";
    hanging.on("data", (chunk: Buffer) => {
      received = (received + chunk.toString("latin1")).slice(-500);
    });
    hanging.resume();
    await expect.poll(() => received, { timeout: 5_000 }).toContain("resource_exhausted");
    hanging.destroy();
  });

  test("loses nothing when nobody waits for it, however long it takes", async ({ expect }) => {
    const client = agent.process();
    // Far more than sockets and backlog hold.
    const size = 64 * 1024 * 1024;
    const abort = new AbortController();
    const starter = new ProcessEvents(
      client.start(shell(`read go; head -c ${size} /dev/zero`), { signal: abort.signal }),
    );
    const { pid } = await starter.until((seen) => seen.pid !== 0);
    const slow = await joinAndHang(pid);
    abort.abort();
    await expect(starter.toEnd()).rejects.toMatchObject({ code: Code.Canceled });
    const input = { input: { case: "stdin", value: Buffer.from("\n") } } as const;
    await client.sendInput({ process: byPid(pid), input });
    // Longer than the half minute after which it would be given up if anybody waited.
    await sleep(35_000);
    expect((await client.list({})).processes.map((process) => process.pid)).toContain(pid);

    let received = 0;
    let last = "";
    slow.on("data", (chunk: Buffer) => {
      received += chunk.length;
      last = (last + chunk.toString("latin1")).slice(-500);
    });
    slow.resume();
    await expect.poll(() => last, { timeout: 30_000 }).toContain('"exited":true');
    // Base64 of all of it, and some framing.
    expect(received).toBeGreaterThan((size / 3) * 4);
    expect(last).not.toContain("resource_exhausted");
    slow.destroy();
  });
});

test("a subscriber that disconnects holds nobody up", async () => {
  const client = agent.process();
  const size = 64 * 1024 * 1024;
  const starter = new ProcessEvents(client.start(shell(`read go; head -c ${size} /dev/zero`)));
  const { pid } = await starter.until((seen) => seen.pid !== 0);
  const hanging = await joinAndHang(pid);
  const input = { input: { case: "stdin", value: Buffer.from("\n") } } as const;
  await client.sendInput({ process: byPid(pid), input });
  await sleep(300);
  hanging.destroy();
  expect((await starter.toEnd()).stdout.length).toBe(size);
  // Well before a subscriber that merely hangs would be given up.
}, 20_000);

test("output without subscribers is read and forgotten", async () => {
  const client = agent.process();
  const abort = new AbortController();
  const script = "read go; head -c 4194304 /dev/zero; echo $? >$HOME/finished; exec sleep 60";
  const starter = new ProcessEvents(client.start(shell(script), { signal: abort.signal }));
  const { pid } = await starter.until((seen) => seen.pid !== 0);
  abort.abort();
  await expect(starter.toEnd()).rejects.toMatchObject({ code: Code.Canceled });
  await client.sendInput({ process: byPid(pid), input: { input: { case: "stdin", value: Buffer.from("\n") } } });
  const finished = () => client.start(shell("cat $HOME/finished"));
  await expect.poll(async () => (await new ProcessEvents(finished()).toEnd()).stdout).toBe("0\n");
  await client.sendSignal({ process: byPid(pid), signal: processProto.Signal.SIGKILL });
});

test("many processes at once are told apart", async () => {
  const client = agent.process();
  const outputs = await Promise.all(
    Array.from({ length: 50 }, (_, index) =>
      new ProcessEvents(client.start(shell(`echo ${index}; exit ${index}`))).toEnd(),
    ),
  );
  expect(outputs.map((seen) => [seen.stdout, seen.end?.exitCode])).toEqual(
    outputs.map((_, index) => [`${index}\n`, index]),
  );
});
