/** Frees what a dead VM held, at once, and keeps why it died until the sandbox is destroyed. */
import type { VmEnd } from "../engines/engine.ts";
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { freeHoldings } from "./free.ts";
import { deadJournal, writeJournal } from "./journal.ts";

export async function reapSandbox(context: SandboxContext, entry: SandboxEntry, end: VmEnd): Promise<void> {
  const { journal, holdings } = entry;
  if (journal.state !== "running") return;
  const { slot, process } = journal;
  // First why, then the freeing: a host agent that is killed between the two still knows both.
  await record({ slot, process });
  await freeHoldings(context, journal.sandboxId, holdings);
  await record({ slot: null, process: null });

  async function record(held: Parameters<typeof deadJournal>[2]): Promise<void> {
    if (journal.state !== "running") return;
    const dead = deadJournal(journal, end, held);
    entry.journal = dead;
    try {
      await writeJournal(context.layout, dead);
    } catch (error) {
      context.log.warn({ sandboxId: journal.sandboxId, err: error }, "could not write down a death");
    }
  }
}
