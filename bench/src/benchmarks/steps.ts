/** Where the time of a create, a pause, a resume and a copy goes: the steps of each, as the host agent's log tells them. */
import { newId, type SandboxId } from "@wrenn/contract";
import { firstOutput } from "../first-output.ts";
import { FrozenHost, type Operation } from "../frozen-host.ts";
import { type Measurement, progressLine } from "../report.ts";

/** More than one round takes, so that each finds some ready. */
const slots = 8;
const readySlots = 2;
const titles: Readonly<Record<Operation, string>> = {
  created: "create",
  paused: "pause",
  resumed: "resume",
  copied: "copy for a fork",
};

export async function measureSteps(runs: number): Promise<Measurement[]> {
  const samples = new Map<string, number[]>();
  const note = (name: string, milliseconds: number): void => {
    const noted = samples.get(name) ?? [];
    samples.set(name, noted);
    noted.push(milliseconds);
  };
  const host = await FrozenHost.start({ slots });
  const timed = async (id: SandboxId, operation: Operation, work: () => Promise<unknown>): Promise<void> => {
    await host.awaitSlots(readySlots);
    const start = performance.now();
    await work();
    const milliseconds = performance.now() - start;
    const title = titles[operation];
    for (const { step, milliseconds: spent } of (await host.report(id, operation)).steps)
      note(`${title}: ${step}`, spent);
    note(`${title}: until the answer`, milliseconds);
  };
  try {
    for (let round = 0; round < runs; round += 1) {
      const id = newId("sandbox");
      await timed(id, "created", () => host.create(id));
      await firstOutput(host, id);
      const copies: SandboxId[] = [];
      await timed(id, "copied", async () => copies.push(...(await host.fork(id, 1))));
      await timed(id, "paused", () => host.pause(id));
      await timed(id, "resumed", () => host.resume(id));
      for (const each of [id, ...copies]) await host.destroy(each);
      console.error(progressLine("steps", round + 1, runs, []));
    }
  } finally {
    await host.stop();
  }
  return [...samples].map(([name, ours]) => ({ name, unit: "ms", ours, target: null, failures: 0 }));
}
