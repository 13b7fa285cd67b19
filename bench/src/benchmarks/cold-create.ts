/** Cold create until the first command's output, against a bare QEMU boot until the same. Interleaved, because machines drift. */
import { Sandbox } from "@wrenn/sdk";
import type { Layout } from "@wrenn/system";
import { openBareNetwork, startBareVm } from "../bare-vm.ts";
import { awaitGuest, firstOutput } from "../guest-client.ts";
import { type Measurement, progressLine } from "../report.ts";
import type { RunningServer } from "../server.ts";
import { hostTscKhz } from "../tsc.ts";

const memoryMib = 512;
const bootTimeoutMs = 30_000;

export async function measureColdCreate(layout: Layout, server: RunningServer, runs: number): Promise<Measurement[]> {
  const ours: number[] = [];
  const bare: number[] = [];
  let failures = 0;
  const tscKhz = await hostTscKhz();
  const network = await openBareNetwork();
  try {
    for (let round = 0; round < runs; round += 1) {
      try {
        bare.push(await bareBoot(layout, tscKhz));
        ours.push(await wrennCreate(server));
      } catch (error) {
        failures += 1;
        console.error(`round ${round + 1} failed: ${String(error)}`);
      }
      console.error(progressLine("cold create", round + 1, runs, ours));
    }
  } finally {
    await network.close();
  }
  return [{ name: "cold create until the first command's output", unit: "ms", ours, bare, target: 1.25, failures }];
}

async function bareBoot(layout: Layout, tscKhz: number): Promise<number> {
  const start = performance.now();
  const vm = await startBareVm(layout, { memoryMib, tscKhz });
  try {
    const endpoint = { url: `http://${vm.address}:49983`, headers: {} };
    await awaitGuest(endpoint, bootTimeoutMs);
    await firstOutput(endpoint);
    return performance.now() - start;
  } finally {
    await vm.stop();
  }
}

async function wrennCreate(server: RunningServer): Promise<number> {
  const start = performance.now();
  const sandbox = await Sandbox.create({ ...server.api, memoryMib });
  try {
    await firstOutput(server.endpoint(sandbox.id));
    return performance.now() - start;
  } finally {
    await sandbox.destroy();
  }
}
