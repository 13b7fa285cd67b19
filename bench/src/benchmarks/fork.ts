/** A running sandbox into ten, until each copy has run its first command, against ten bare restores at once; and how long the source stands still. */
import type { SandboxId } from "@wrenn/contract";
import { firstOutput, timeBareRestores } from "../first-output.ts";
import { besideBare, type FrozenHost } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";
import { Series } from "../series.ts";

const copies = 10;

export async function measureFork(runs: number): Promise<Measurement[]> {
  const total = new Series();
  const frozen = new Series();
  await besideBare({ slots: copies + 1, networks: copies }, async (host, networks) => {
    for (let round = 0; round < runs; round += 1) {
      let frozenMs = 0;
      await total.add({
        bare: () => timeBareRestores(host, networks),
        ours: async () => {
          const fork = await timeFork(host);
          frozenMs = fork.frozenMs;
          return fork.totalMs;
        },
      });
      await frozen.add({ bare: () => pauseOf(host), ours: async () => frozenMs });
      console.error(progressLine(`fork into ${copies}`, round + 1, runs, total.ours));
    }
  });
  return [
    total.measurement(`fork of a running sandbox into ${copies}: until each has run its first command`, 1.3),
    frozen.measurement("fork: the source stands still, against a pause (as bare)", 1),
  ];
}

async function timeFork(host: FrozenHost): Promise<{ totalMs: number; frozenMs: number }> {
  const source = await host.create();
  const ids: SandboxId[] = [source];
  try {
    await firstOutput(host, source);
    await host.awaitSlots(copies);
    const start = performance.now();
    const forks = await host.fork(source, copies);
    ids.push(...forks);
    await Promise.all(forks.map((id) => firstOutput(host, id)));
    const totalMs = performance.now() - start;
    const report = await host.report(source, "copied");
    return { totalMs, frozenMs: report.between("freeze", "thaw") };
  } finally {
    for (const id of ids) await host.destroy(id);
  }
}

/** How long the guest of a pause stands still before its state is committed. */
async function pauseOf(host: FrozenHost): Promise<number> {
  const id = await host.create();
  try {
    await firstOutput(host, id);
    await host.pause(id);
    return (await host.report(id, "paused")).between("freeze", "commit");
  } finally {
    await host.destroy(id);
  }
}
