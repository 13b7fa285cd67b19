/** A keystroke in a terminal until its echo: over the API's WebSocket, against a terminal straight at the guest agent. */
import { once } from "node:events";
import { streamChannels } from "@wrenn/contract";
import { WebSocket } from "ws";
import { type GuestEndpoint, processesOf } from "../guest-client.ts";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";

const warmUps = 50;
/** The kernel's line buffer takes 4,095 characters and echoes no more; the line is never ended, for that would print more than an echo. */
const maxRuns = 4_000;
const key = "x".charCodeAt(0);

interface Terminal {
  /** Sends one character and resolves when its echo has come. */
  press(): Promise<void>;
  close(): void;
}

export async function measureTerminalEcho(server: RunningServer, runs: number): Promise<Measurement[]> {
  if (runs > maxRuns) throw new Error(`at most ${maxRuns} runs`);
  const { id, direct } = await server.createSandbox();
  const ours: number[] = [];
  const bare: number[] = [];
  const terminals = [await overWebSocket(server, id), await straight(direct)] as const;
  try {
    const [proxied, near] = terminals;
    for (let round = -warmUps; round < runs; round += 1) {
      const samples = { bare: await timed(near), ours: await timed(proxied) };
      if (round < 0) continue;
      bare.push(samples.bare);
      ours.push(samples.ours);
    }
    console.error(progressLine("terminal echo", runs, runs, ours));
  } finally {
    for (const terminal of terminals) terminal.close();
    await server.destroySandbox(id);
  }
  return [{ name: "terminal: keystroke to echo, median", unit: "ms", ours, bare, target: 1.5, failures: 0 }];
}

async function timed(terminal: Terminal): Promise<number> {
  const start = performance.now();
  await terminal.press();
  return performance.now() - start;
}

async function overWebSocket(server: RunningServer, id: string): Promise<Terminal> {
  const socket = new WebSocket(server.streamUrl(`/v1/sandboxes/${id}/pty`), { headers: server.keyHeaders });
  await once(socket, "open");
  socket.send(JSON.stringify({ type: "start", cmd: "cat" }));
  const started = JSON.parse(String((await once(socket, "message"))[0])) as { type: string };
  if (started.type !== "started") throw new Error(`the terminal did not start: ${JSON.stringify(started)}`);
  return {
    press: async () => {
      const echo = once(socket, "message");
      socket.send(Buffer.from([streamChannels.stdin, key]));
      await echo;
    },
    close: () => socket.terminate(),
  };
}

async function straight(endpoint: GuestEndpoint): Promise<Terminal> {
  const processes = processesOf(endpoint);
  const stop = new AbortController();
  const request = { process: { cmd: "cat" }, pty: { size: { cols: 80, rows: 24 } } };
  const events = processes.start(request, { signal: stop.signal })[Symbol.asyncIterator]();
  const first = await events.next();
  const event = first.done === true ? undefined : first.value.event?.event;
  if (event?.case !== "start") throw new Error("the terminal did not start");
  const process = { selector: { case: "pid" as const, value: event.value.pid } };
  return {
    press: async () => {
      const echo = events.next();
      await processes.sendInput({ process, input: { input: { case: "pty", value: Uint8Array.of(key) } } });
      await echo;
    },
    close: () => {
      stop.abort();
    },
  };
}
