import { createHash, randomBytes, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { StartProcessInput } from "@wrenn/contract";
import { eventually } from "@wrenn/control-plane/testing";
import { afterEach, expect, test } from "vitest";
import { alive } from "../guest-agent/process-events.ts";
import { endProcesses, useApiServer } from "../harness/api-server.ts";
import { StreamClient } from "../harness/stream-client.ts";

const api = useApiServer();
const clients: StreamClient[] = [];

afterEach(async () => {
  for (const client of clients.splice(0)) client.webSocket.terminate();
  await endProcesses(api().guest);
});

async function start(ask: StartProcessInput): Promise<number> {
  const { server, sandbox } = api();
  const { body } = await server.post(`/v1/sandboxes/${sandbox.id}/processes`, ask);
  return (body as unknown as { pid: number }).pid;
}

async function shell(script: string, more: Partial<StartProcessInput> = {}): Promise<number> {
  return start({ cmd: "sh", args: ["-c", script], stdin: true, ...more });
}

async function attach(pid: number, query = ""): Promise<StreamClient> {
  const { server, sandbox } = api();
  const client = await StreamClient.open(server, `/v1/sandboxes/${sandbox.id}/processes/${pid}/stream${query}`);
  clients.push(client);
  return client;
}

test("a process is followed with what it printed before, to its end", async () => {
  const tag = randomUUID();
  const pid = await shell("echo before; echo early >&2; read line; echo $line; exit 6", { tag });
  const client = await attach(pid);
  expect(await client.message("started")).toEqual({ type: "started", pid, tag });
  await client.printed("before\n");
  await client.input("go on\n");
  expect(await client.closed()).toMatchObject({ code: 1000, last: { type: "exit", exit_code: 6 } });
  expect([client.stdout.toString(), client.stderr.toString()]).toEqual(["before\ngo on\n", "early\n"]);
});

test("without a replay, a process is followed from now on", async () => {
  const pid = await shell("echo before; read line; echo $line");
  await (await attach(pid)).printed("before\n");
  const client = await attach(pid, "?replay=false");
  await client.started();
  await client.input("after\n");
  await client.closed();
  expect(client.stdout.toString()).toBe("after\n");
});

test("what was printed last is replayed, byte for byte", async () => {
  const pid = await shell("head -c 200000 /dev/urandom | tee /mnt/printed; echo done >&2; sleep 1000");
  const first = await attach(pid);
  await eventually(() => expect(first.stderr.toString()).toBe("done\n"));
  const printed = await readFile(api().guest.outside("/mnt/printed"));
  const second = await attach(pid, "?replay=true");
  const kept = 64 * 1024 - "done\n".length;
  await eventually(() => expect(second.stdout.equals(printed.subarray(-kept))).toBe(true));
});

test("two who follow one process each get all of it", async () => {
  const program = [
    "import hashlib, os, sys",
    "sys.stdin.readline()",
    "output = os.urandom(3000000)",
    "sys.stdout.buffer.write(output)",
    "sys.stderr.write(hashlib.sha256(output).hexdigest())",
  ].join("\n");
  const pid = await start({ cmd: "python3", args: ["-c", program], stdin: true });
  const [first, second] = [await attach(pid), await attach(pid)];
  await Promise.all([first.started(), second.started()]);
  await first.input("go\n");
  for (const follower of [first, second]) {
    expect((await follower.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
    expect(createHash("sha256").update(follower.stdout).digest("hex")).toBe(follower.stderr.toString());
  }
});

test("leaving a process, however it was started, never ends it", async () => {
  const pid = await shell("while :; do echo tick; sleep 0.02; done");
  for (const leave of ["close", "terminate"] as const) {
    const client = await attach(pid);
    await client.printed("tick");
    client.webSocket[leave]();
    await client.closed();
  }
  const wrong = await attach(pid);
  wrong.say({ type: "no such type" });
  expect(await wrong.failure()).toEqual([1008, "invalid_message"]);
  expect(await alive(pid)).toBe(true);
});

test("who follows a process may signal it and end its input", async () => {
  const pid = await shell("trap 'echo hup' HUP; echo ready; cat >/dev/null; echo end of input; sleep 1000");
  const client = await attach(pid);
  await client.printed("ready");
  client.say({ type: "close_stdin" });
  await client.printed("end of input");
  client.say({ type: "signal", signal: "SIGKILL" });
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 137, exited: false });
});

test("a terminal can be followed by its pid, typed into and resized", async () => {
  const { server, sandbox } = api();
  const owner = await StreamClient.open(server, `/v1/sandboxes/${sandbox.id}/pty`);
  clients.push(owner);
  owner.say({ type: "start", cmd: "sh", envs: { PS1: "" } });
  const client = await attach(await owner.started());
  await client.started();
  client.say({ type: "resize", cols: 91, rows: 31 });
  await client.input("stty size\n");
  expect(await client.printed(/^31 91\r$/m)).toContain("stty size");
});

test("input comes in the order in which it was sent", async () => {
  const pid = await start({ cmd: "cat", stdin: true });
  const client = await attach(pid);
  await client.started();
  const bytes = randomBytes(300_000);
  for (let at = 0; at < bytes.length; at += 997) void client.input(bytes.subarray(at, at + 997));
  client.say({ type: "close_stdin" });
  expect((await client.closed()).code).toBe(1000);
  expect(client.stdout.equals(bytes)).toBe(true);
});

test("a process that has just ended tells its end, one that never was is not found", async () => {
  const pid = await shell("echo last words; exit 8");
  await eventually(async () => expect(await alive(pid)).toBe(false));
  const late = await attach(pid);
  expect((await late.closed()).last).toMatchObject({ type: "exit", exit_code: 8 });
  expect(late.stdout.toString()).toBe("last words\n");
  expect(await (await attach(4_000_000)).failure()).toEqual([1008, "process_not_found"]);
});
