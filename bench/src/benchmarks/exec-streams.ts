/**
 * Fifty commands at once over WebSockets, 50 MiB in all, a tenth of the readers slow, against the same commands straight at the guest
 * agent. What counts first is that no byte is lost: the sum of what each command printed is compared with what was received.
 */
import { once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { streamChannels } from "@wrenn/contract";
import { WebSocket } from "ws";
import { type GuestEndpoint, processesOf } from "../guest-client.ts";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";

const streams = 50;
const bytesEach = 1_048_576;
/** These readers take nothing for a while, again and again. */
const slowEvery = 10;
const slowPauseMs = 100;

const command = { cmd: "head", args: ["-c", String(bytesEach), "/dev/zero"] };

export async function measureExecStreams(server: RunningServer, runs: number): Promise<Measurement[]> {
  const { id, direct } = await server.createSandbox({ memory_mib: 1_024 });
  const ours: number[] = [];
  const bare: number[] = [];
  let lost = 0;
  try {
    for (let round = 0; round < runs; round += 1) {
      bare.push(await timed(() => straight(direct)));
      ours.push(
        await timed(async (index) => {
          const received = await overWebSocket(server, id, index % slowEvery === 0);
          lost += Math.abs(bytesEach - received);
        }),
      );
      console.error(progressLine("exec streams", round + 1, runs, ours));
    }
  } finally {
    await server.destroySandbox(id);
  }
  const what = `${streams} exec streams, ${(streams * bytesEach) / 1_048_576} MiB in all`;
  return [
    { name: `${what}, some readers slow`, unit: "ms", ours, bare, target: 1.5, failures: 0 },
    { name: `${what}: bytes lost`, unit: "bytes", ours: [lost], target: 0, failures: 0 },
  ];
}

async function timed(stream: (index: number) => Promise<void>): Promise<number> {
  const start = performance.now();
  await Promise.all(Array.from({ length: streams }, async (_, index) => stream(index)));
  return performance.now() - start;
}

async function straight(endpoint: GuestEndpoint): Promise<void> {
  let received = 0;
  for await (const { event } of processesOf(endpoint).start({ process: command, stdin: false })) {
    if (event?.event.case === "data") received += event.event.value.output.value?.length ?? 0;
  }
  if (received !== bytesEach) throw new Error(`${received} bytes came straight from the guest agent`);
}

/** How many bytes of output came. */
async function overWebSocket(server: RunningServer, id: string, slow: boolean): Promise<number> {
  const socket = new WebSocket(server.streamUrl(`/v1/sandboxes/${id}/exec/stream`), { headers: server.keyHeaders });
  await once(socket, "open");
  let received = 0;
  socket.on("message", (data: Buffer, binary: boolean) => {
    if (!binary || data[0] !== streamChannels.stdout) return;
    received += data.length - 1;
    if (slow) void pauseFor(socket);
  });
  const closed = once(socket, "close");
  socket.send(JSON.stringify({ type: "start", ...command, stdin: false }));
  await closed;
  return received;
}

async function pauseFor(socket: WebSocket): Promise<void> {
  if (socket.isPaused) return;
  socket.pause();
  await delay(slowPauseMs);
  socket.resume();
}
