/** Frees what a dead VM held, at once, and keeps its disk and why it died until the sandbox is destroyed or recovered. */
import type { VmEnd } from "../engines/engine.ts";
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { settleDiskSwitch } from "./disk-switch.ts";
import { freeHoldings } from "./free.ts";
import { deadJournal, type DeadJournal, type RunningJournal, writeJournal } from "./journal.ts";

export async function reapSandbox(
  context: SandboxContext,
  entry: SandboxEntry,
  running: RunningJournal,
  end: VmEnd,
): Promise<void> {
  const { holdings } = entry;
  const { slot, process } = running;
  // First why, then the freeing: a host agent that is killed between the two still knows both.
  const dead = deadJournal(running, end, { slot, process });
  await step("journal the death", () => note(dead));
  await step("free what it held", () => freeHoldings(context, running.sandboxId, holdings));
  const freed = { ...dead, slot: null, process: null };
  await step("journal that it is freed", () => note(freed));
  await step("settle the disk", async () => {
    entry.journal = await settleDiskSwitch(context, freed, holdings.files);
  });

  async function step(name: string, run: () => Promise<void>): Promise<void> {
    await context.runStep("reap", name, run);
  }

  async function note(journal: DeadJournal): Promise<void> {
    entry.journal = journal;
    try {
      await writeJournal(context.layout, journal);
    } catch (error) {
      context.log.warn({ sandboxId: journal.sandboxId, err: error }, "could not write down a death");
    }
  }
}
