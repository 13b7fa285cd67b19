/** Destroys a sandbox, from whatever state: a destroy that was cut short is continued by the next. */
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { freeHoldings, removeDirectory } from "./free.ts";
import { factsOf, type Journal, writeJournal } from "./journal.ts";

export async function destroySandbox(context: SandboxContext, entry: SandboxEntry): Promise<void> {
  const { holdings } = entry;
  const { sandboxId: id } = entry.journal;
  const destroying: Journal = {
    ...factsOf(entry.journal),
    state: "destroying",
    slot: holdings.slot?.index ?? null,
    process: holdings.process,
    steps: [],
  };
  entry.journal = destroying;
  try {
    await writeJournal(context.layout, destroying);
  } catch (error) {
    // A full disk must not keep a sandbox from being destroyed, which frees space. Cut short, it is found dead at the next start.
    context.log.warn({ sandboxId: id, err: error }, "destroying without having written it down");
  }
  await freeHoldings(context, id, holdings);
  await removeDirectory(context, id);
}
