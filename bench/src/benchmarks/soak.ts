/**
 * Minutes of everything at once, clients that vanish included; then what control plane and host agent hold more than after the first
 * of them: descriptors, memory, processes in the guest, sandboxes.
 */
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { listProcessesSchema, listSandboxesSchema } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { WebSocket } from "ws";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";
import { residentMemoryMib } from "./guest-agent.ts";

const minuteMs = 60_000;
/** Of each kind of load. More of them keep an emulated guest from answering within the time that a call of it may take. */
const workers = 1;
const settleTimeoutMs = 30_000;
const fileBytes = 1_048_576;

interface Held {
  readonly descriptors: number;
  readonly memoryMib: number;
}

export async function measureSoak(server: RunningServer, minutes: number): Promise<Measurement[]> {
  const { id } = await server.createSandbox();
  const count = { done: 0, failed: 0 };
  try {
    await load(server, id, minuteMs, count);
    const before = await settled(server, id);
    for (let minute = 1; minute < minutes; minute += 1) {
      await load(server, id, minuteMs, count);
      console.error(
        progressLine(`soak: ${count.done} operations, ${count.failed} failed; minutes`, minute + 1, minutes, []),
      );
    }
    const after = await settled(server, id);
    const what = `${minutes} minutes of load`;
    const grown = (key: keyof Held) => ({ ours: [after[key] - before[key]], failures: count.failed });
    return [
      {
        name: `${what}: descriptors more than after the first`,
        unit: "descriptors",
        ...grown("descriptors"),
        target: 8,
      },
      { name: `${what}: resident memory more than after the first`, unit: "MiB", ...grown("memoryMib"), target: 48 },
    ];
  } finally {
    await server.destroySandbox(id);
  }
}

/** What is held once nothing is under way any more, which must come to pass. */
async function settled(server: RunningServer, id: string): Promise<Held> {
  const quiet = await pollUntil(
    async () => {
      const { processes } = listProcessesSchema.parse(
        await (await server.request("GET", `/v1/sandboxes/${id}/processes`)).json(),
      );
      const { sandboxes } = listSandboxesSchema.parse(await (await server.request("GET", "/v1/sandboxes")).json());
      return processes.length === 0 && sandboxes.length === 1 ? true : null;
    },
    { timeoutMs: settleTimeoutMs, intervalMs: 200 },
  );
  if (quiet === null) throw new Error("processes or sandboxes of the load are still there");
  const pids = Object.values(await server.parts());
  const descriptors = await Promise.all(pids.map(async (pid) => (await readdir(`/proc/${pid}/fd`)).length));
  const memory = await Promise.all(pids.map(residentMemoryMib));
  return { descriptors: sum(descriptors), memoryMib: sum(memory) };
}

async function load(
  server: RunningServer,
  id: string,
  milliseconds: number,
  count: { done: number; failed: number },
): Promise<void> {
  const until = performance.now() + milliseconds;
  const repeat = async (work: () => Promise<void>): Promise<void> => {
    while (performance.now() < until) {
      try {
        await work();
        count.done += 1;
      } catch (error) {
        count.failed += 1;
        console.error(`failed: ${String(error)}`);
      }
    }
  };
  const path = `/v1/sandboxes/${id}`;
  const kinds = [
    () =>
      drained(server.request("POST", `${path}/exec`, { cmd: "sh", args: ["-c", "echo $$; head -c 100000 /dev/zero"] })),
    () => drained(server.request("GET", "/v1/sandboxes?limit=10")),
    () => transfer(server, path),
    () => stream(server, `${path}/exec/stream`, { type: "start", cmd: "seq", args: ["1000"] }, "end"),
    // Clients that go away while a command prints, and while a terminal waits.
    () => stream(server, `${path}/exec/stream`, { type: "start", cmd: "yes" }, "vanish"),
    () => stream(server, `${path}/pty`, { type: "start" }, "vanish"),
    () => abandoned(server, path),
  ];
  const creating = async (): Promise<void> => {
    const sandbox = await server.createSandbox({ memory_mib: 256 });
    await server.destroySandbox(sandbox.id);
  };
  await Promise.all([
    repeat(creating),
    ...kinds.flatMap((kind) => Array.from({ length: workers }, () => repeat(kind))),
  ]);
}

async function drained(answer: Promise<Response>): Promise<void> {
  await (await answer).arrayBuffer();
}

async function transfer(server: RunningServer, path: string): Promise<void> {
  const file = server.url(`${path}/files?path=/tmp/soak-${Math.floor(Math.random() * 8)}`);
  const put = await fetch(file, { method: "PUT", headers: server.keyHeaders, body: Buffer.alloc(fileBytes, "x") });
  await put.arrayBuffer();
  if (!put.ok) throw new Error(`the upload was answered with ${put.status}`);
  const get = await fetch(file, { headers: server.keyHeaders });
  if ((await get.arrayBuffer()).byteLength !== fileBytes) throw new Error("the download is not the upload");
}

/** A command whose caller gives up before it has ended. */
async function abandoned(server: RunningServer, path: string): Promise<void> {
  const leave = new AbortController();
  const call = fetch(server.url(`${path}/exec`), {
    method: "POST",
    headers: { ...server.keyHeaders, "content-type": "application/json" },
    body: '{"cmd":"sleep","args":["600"]}',
    signal: leave.signal,
  });
  await delay(Math.random() * 200);
  leave.abort();
  await call.then(
    (response) => response.arrayBuffer(),
    () => undefined,
  );
}

async function stream(server: RunningServer, path: string, start: object, how: "end" | "vanish"): Promise<void> {
  const socket = new WebSocket(server.streamUrl(path), { headers: server.keyHeaders });
  const closed = once(socket, "close");
  await once(socket, "open");
  socket.send(JSON.stringify(start));
  if (how === "vanish") {
    await once(socket, "message");
    socket.terminate();
  }
  await closed;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
