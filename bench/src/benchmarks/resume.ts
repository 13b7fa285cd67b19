/**
 * Resume until the first command's output, against a bare restore of a state with the same past; and memory that a pager brings against
 * memory that is mapped from a file, with the frozen files in the page cache and out of it.
 */
import { copyFile } from "node:fs/promises";
import path from "node:path";
import { executeAt } from "@wrenn/host-agent/testing";
import { run } from "@wrenn/system";
import type { BareNetwork } from "../bare-network.ts";
import { BareGuest, type FrozenGuest } from "../bare-restore.ts";
import { firstOutput, timeBareRestores, timeCreates } from "../first-output.ts";
import { besideBare, FrozenHost } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";
import { Series } from "../series.ts";

export async function measureResume(runs: number): Promise<Measurement[]> {
  const resume = new Series();
  const warm = new Series();
  const dropped = new Series();
  await besideBare({ networks: 1 }, async (host, networks) => {
    const frozen = await freezeOnce(host, networks);
    for (let round = 0; round < runs; round += 1) {
      await resume.add({
        bare: () => timeBareRestores({ frozen, scratch: host.scratch }, networks),
        ours: () => timeResume(host),
      });
      console.error(progressLine("resume", round + 1, runs, resume.ours));
    }
    const served = await FrozenHost.start({ memory: "uffd" });
    try {
      for (let round = 0; round < runs; round += 1) {
        await warm.add({ bare: () => timeCreates(host, 1), ours: () => timeCreates(served, 1) });
        await dropped.add({
          bare: async () => {
            await host.dropCache();
            return timeCreates(host, 1);
          },
          ours: async () => {
            await served.dropCache();
            return timeCreates(served, 1);
          },
        });
        console.error(progressLine("restore by a pager", round + 1, runs, warm.ours));
      }
    } finally {
      await served.stop();
    }
  });
  const pager = "restore until the first command's output, memory by userfaultfd against mapped (as bare)";
  return [
    resume.measurement("resume until the first command's output", 1.3),
    warm.measurement(`${pager}: page cache warm`, 1.5),
    dropped.measurement(`${pager}: page cache dropped`, 1.5),
  ];
}

async function timeResume(host: FrozenHost): Promise<number> {
  const id = await host.create();
  try {
    await firstOutput(host, id);
    await host.pause(id);
    const start = performance.now();
    await host.resume(id);
    await firstOutput(host, id);
    return performance.now() - start;
  } finally {
    await host.destroy(id);
  }
}

/** A bare guest with the past of those that are resumed: restored, asked for one command, frozen. Its memory is one file again. */
async function freezeOnce(host: FrozenHost, [network]: readonly BareNetwork[]): Promise<FrozenGuest> {
  if (network === undefined) throw new Error("there is no network");
  const memory = path.join(host.scratch, "frozen-memory");
  const deviceState = path.join(host.scratch, "frozen-device-state");
  const overlay = path.join(host.scratch, "frozen.qcow2");
  await run("cp", ["--sparse=always", host.frozen.memory, memory]);
  const guest = await BareGuest.restore(host.frozen, network, host.scratch);
  try {
    await executeAt(guest.address, "echo ready");
    await guest.freeze(memory, deviceState);
    // Its disk as it is now. A user would lay an overlay over it once, as this copies one.
    await copyFile(guest.overlay, overlay);
    return { ...host.frozen, memory, deviceState, overlay };
  } finally {
    await guest.stop();
  }
}
