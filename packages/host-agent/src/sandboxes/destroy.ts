/** Destroys a sandbox, from whatever state: a destroy that was cut short is continued by the next. */
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { freeHoldings, removeDirectory } from "./free.ts";
import { factsOf, type Journal, writeJournal } from "./journal.ts";
import { StepClock } from "./step-clock.ts";

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
  const clock = new StepClock(context, "destroy", null);
  try {
    await clock.step({ name: "journal", run: () => writeJournal(context.layout, destroying) }).run();
  } catch (error) {
    // A full disk must not keep a sandbox from being destroyed, which frees space. Cut short, it is found dead at the next start.
    context.log.warn({ sandboxId: id, err: error }, "destroying without having written it down");
  }
  await clock.step({ name: "free what it held", run: () => freeHoldings(context, id, holdings) }).run();
  await clock.step({ name: "remove the directory", run: () => removeDirectory(context, id) }).run();
}
