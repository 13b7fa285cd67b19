/**
 * Create from a golden snapshot until the first command's output, against a bare restore of the same state: through the public API, and by
 * the host agent's own calls, one at a time and twenty at once.
 */
import { mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { Sandbox } from "@wrenn/sdk";
import { openBareNetworks } from "../bare-network.ts";
import { command, timeBareRestores, timeCreates } from "../first-output.ts";
import { besideBare, goldenGuest, memoryMib } from "../frozen-host.ts";
import { firstOutput } from "../guest-client.ts";
import { type Measurement, progressLine } from "../report.ts";
import { Series } from "../series.ts";
import type { RunningServer } from "../server.ts";

const atOnce = 20;
/** Bursts for each single create: they take seconds. */
const burstsPerRun = 1 / 8;

export async function measureRestoreCreate(server: RunningServer, runs: number): Promise<Measurement[]> {
  const bursts = Math.max(1, Math.round(runs * burstsPerRun));
  const single = new Series();
  const burst = new Series();
  await besideBare({ slots: atOnce + 1, networks: atOnce }, async (host, networks) => {
    for (let round = 0; round < runs; round += 1) {
      await single.add({
        bare: () => timeBareRestores(host, networks.slice(0, 1)),
        ours: () => timeCreates(host, 1),
      });
      console.error(progressLine("create from a golden snapshot", round + 1, runs, single.ours));
    }
    for (let round = 0; round < bursts; round += 1) {
      await host.awaitSlots(atOnce);
      await burst.add({ bare: () => timeBareRestores(host, networks), ours: () => timeCreates(host, atOnce) });
      console.error(progressLine(`${atOnce} at once`, round + 1, bursts, burst.ours));
    }
  });
  const name = "create from a golden snapshot until the first command's output";
  return [
    (await throughApi(server, runs)).measurement(`${name}, through the API`, 1.3),
    single.measurement(`${name}, by the host agent`, 1.3),
    burst.measurement(`${name}, by the host agent, ${atOnce} at once: the last of them`, 1.2),
  ];
}

async function throughApi(server: RunningServer, runs: number): Promise<Series> {
  const series = new Series();
  const scratch = await mkdtemp(path.join(server.layout.root, "bare-"));
  const { networks, close } = await openBareNetworks(1);
  try {
    // Makes the golden snapshot, if it is not there.
    await timeApiCreate(server);
    const frozen = await goldenGuest(server.layout, scratch);
    for (let round = 0; round < runs; round += 1) {
      await series.add({
        bare: () => timeBareRestores({ frozen, scratch }, networks),
        ours: () => timeApiCreate(server),
      });
      console.error(progressLine("create through the API", round + 1, runs, series.ours));
    }
  } finally {
    await close();
    await rm(scratch, { recursive: true });
  }
  return series;
}

async function timeApiCreate(server: RunningServer): Promise<number> {
  const start = performance.now();
  const sandbox = await Sandbox.create({ ...server.api, memoryMib });
  try {
    await firstOutput(server.endpoint(sandbox.id), ["/bin/sh", "-c", command]);
    return performance.now() - start;
  } finally {
    await sandbox.destroy();
  }
}
