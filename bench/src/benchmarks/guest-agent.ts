/** The guest agent by itself, run on the host's processor: size on disk, resident memory when idle, and time from exec to serving. */
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { endProcess, identifyProcess, startDaemon } from "@wrenn/system";
import { connectsTo } from "../connects-to.ts";
import type { Measurement } from "../report.ts";

/** An agent is idle once its start-up allocations have settled. */
const settleMs = 300;

export async function measureGuestAgent(binary: string, runs: number): Promise<Measurement[]> {
  const directory = await mkdtemp(path.join(os.tmpdir(), "wrenn-agent-"));
  const startMs: number[] = [];
  const residentMib: number[] = [];
  try {
    for (let round = 0; round < runs; round += 1) {
      const port = await freePort();
      const start = performance.now();
      const { pid } = await startDaemon(binary, ["agent", "--port", String(port), "--host-interface", "lo"], {
        logFile: path.join(directory, "agent.log"),
      });
      const identity = await identifyProcess(pid);
      if (identity === null) throw new Error(await readFile(path.join(directory, "agent.log"), "utf8"));
      try {
        while (!(await connectsTo(port))) {
          if (performance.now() - start > 5_000) throw new Error("the guest agent did not serve within 5 s");
        }
        startMs.push(performance.now() - start);
        if (round < 5) {
          await delay(settleMs);
          residentMib.push(await residentMemoryMib(pid));
        }
      } finally {
        await endProcess(identity, 100);
      }
    }
  } finally {
    await rm(directory, { recursive: true });
  }
  const sizeMib = (await stat(binary)).size / 1_048_576;
  return [
    { name: "guest agent: exec to serving (with its spawn)", unit: "ms", ours: startMs, target: 10, failures: 0 },
    { name: "guest agent: resident when idle", unit: "MiB", ours: residentMib, target: 4, failures: 0 },
    { name: "guest agent: on disk", unit: "MiB", ours: [sizeMib], target: 4, failures: 0 },
  ];
}

export async function residentMemoryMib(pid: number): Promise<number> {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1];
  if (kib === undefined) throw new Error(`process ${pid} has no resident memory`);
  return Number(kib) / 1_024;
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
