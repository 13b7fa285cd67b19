/** A command in a running sandbox until its output has ended, through Wrenn against straight to the guest agent. */
import { firstOutput, type GuestEndpoint } from "../guest-client.ts";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";

export async function measureGuestCommand(server: RunningServer, runs: number): Promise<Measurement[]> {
  const { id, direct, proxied } = await server.createSandbox();
  const ours: number[] = [];
  const bare: number[] = [];
  try {
    for (let round = -3; round < runs; round += 1) {
      const samples = { bare: await timed(direct), ours: await timed(proxied) };
      // The first rounds warm up both sides.
      if (round < 0) continue;
      bare.push(samples.bare);
      ours.push(samples.ours);
    }
    console.error(progressLine("guest command", runs, runs, ours));
  } finally {
    await server.destroySandbox(id);
  }
  return [{ name: "echo in a running sandbox, median", unit: "ms", ours, bare, target: 1.5, failures: 0 }];
}

async function timed(endpoint: GuestEndpoint): Promise<number> {
  const start = performance.now();
  await firstOutput(endpoint);
  return performance.now() - start;
}
