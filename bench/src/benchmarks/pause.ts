/**
 * Pause with little and much changed, against a bare engine that stops, saves its devices and writes the same pages: how long the guest
 * stands still until all is durable, how long until the pause is acknowledged, and what is written.
 */
import { mkdtemp, rm } from "node:fs/promises";
import path from "node:path";
import { executeAt } from "@wrenn/host-agent/testing";
import type { BareNetwork } from "../bare-network.ts";
import { BareGuest } from "../bare-restore.ts";
import { besideBare, type FrozenHost } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";
import { Series } from "../series.ts";

const changedMib = [0, 10, 100];
/** A guest that has written so much writes no more than `maxWrittenMib` when it is paused. */
const writtenMib = 5;
const maxWrittenMib = 8;

export async function measurePause(runs: number): Promise<Measurement[]> {
  const sizes = changedMib.map((mib) => ({ mib, frozen: new Series(), acknowledged: new Series() }));
  const written: number[] = [];
  await besideBare({ networks: 1 }, async (host, [network]) => {
    if (network === undefined) throw new Error("there is no network");
    for (let round = 0; round < runs; round += 1) {
      for (const { mib, frozen, acknowledged } of sizes) {
        let bare = 0;
        await frozen.add({
          bare: async () => (bare = await barePause(host, network, mib)),
          ours: async () => {
            const pause = await wrennPause(host, mib);
            acknowledged.bare.push(bare);
            acknowledged.ours.push(pause.acknowledgedMs);
            return pause.frozenMs;
          },
        });
        console.error(progressLine(`pause with ${mib} MiB changed`, round + 1, runs, frozen.ours));
      }
    }
    written.push((await wrennPause(host, writtenMib)).writtenMib);
  });
  return [
    ...sizes.flatMap(({ mib, frozen, acknowledged }) => [
      frozen.measurement(`pause with ${mib} MiB changed: guest stopped until all is durable`, 1.5),
      acknowledged.measurement(`pause with ${mib} MiB changed: asked for until acknowledged and durable`, null),
    ]),
    {
      name: `pause with ${writtenMib} MiB changed: written`,
      unit: "MiB",
      ours: written,
      target: maxWrittenMib,
      failures: 0,
    },
  ];
}

/** Fills memory with what is not zero. */
function change(mib: number): string {
  return mib === 0 ? "true" : `head -c ${mib}M /dev/zero | tr '\\0' x > /dev/shm/changed`;
}

async function barePause(host: FrozenHost, network: BareNetwork, mib: number): Promise<number> {
  const directory = await mkdtemp(path.join(host.scratch, "paused-"));
  const guest = await BareGuest.restore(host.frozen, network, host.scratch);
  try {
    await executeAt(guest.address, change(mib));
    const start = performance.now();
    await guest.freeze(path.join(directory, "memory"), path.join(directory, "device-state"));
    return performance.now() - start;
  } finally {
    await guest.stop();
    await rm(directory, { recursive: true });
  }
}

async function wrennPause(
  host: FrozenHost,
  mib: number,
): Promise<{ frozenMs: number; acknowledgedMs: number; writtenMib: number }> {
  const id = await host.create();
  try {
    await host.run(id, change(mib));
    const start = performance.now();
    await host.pause(id);
    const acknowledgedMs = performance.now() - start;
    const report = await host.report(id, "paused");
    const writtenMib = (await report.newBytes()) / 1_048_576;
    return { frozenMs: report.between("freeze", "commit"), acknowledgedMs, writtenMib };
  } finally {
    await host.destroy(id);
  }
}
