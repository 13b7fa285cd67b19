/**
 * Pauses a sandbox: its whole state becomes a generation, then everything else of it is freed. The journal that says `paused` is the
 * commit: whatever fails before it leaves the VM running and the older generation as it was; nothing after it undoes it.
 */
import { runSteps, tryAll } from "@wrenn/system";
import { asDiskError } from "../memory/sizes.ts";
import type { MemoryImage } from "../memory/pager.ts";
import { captureMemory, captureSubject, contentOf, keepWorkingSet } from "./capture.ts";
import { record, required, type SandboxContext, type SandboxEntry } from "./context.ts";
import { freeHoldings, removeOverlays } from "./free.ts";
import { syncGuest } from "./guest-client.ts";
import { factsOf, type PausedJournal, type RunningJournal } from "./journal.ts";
import { diskAfterSwitch, overlayOf } from "./own-disk.ts";
import { StepClock } from "./step-clock.ts";

export async function pauseSandbox(
  context: SandboxContext,
  entry: SandboxEntry,
  running: RunningJournal,
  signal: AbortSignal,
): Promise<void> {
  const disks = context.disks.of(running.disk.format);
  const { holdings } = entry;
  const subject = captureSubject(running, holdings);
  const vm = required(holdings.vm, "VM");
  const draft = await context.generations.begin();
  const clock = new StepClock(context, "pause", signal);
  const overlay = { sandboxId: running.sandboxId, file: overlayOf(holdings.files, running.disk) };
  let memory: MemoryImage | null = null;
  let mayBeNamed = false;
  try {
    await runSteps(
      [
        {
          name: "sync the guest",
          run: () => syncGuest(required(holdings.slot, "slot").address, context.log),
          // The last to be undone, when the guest runs again.
          undo: async () => {
            if (!mayBeNamed) await draft.discard();
          },
        },
        { name: "freeze", run: () => vm.freeze(), undo: () => vm.thaw() },
        {
          name: "capture the memory",
          run: async () => {
            memory = await captureMemory(context, subject, draft, signal);
          },
        },
        { name: "keep the disk", run: () => disks.keepAsLayer(overlay, draft.diskLayer) },
        {
          name: "publish",
          run: async () => {
            await draft.publish(contentOf(subject, draft, required(memory, "captured memory")));
            await keepWorkingSet(context, subject, draft);
          },
        },
        {
          name: "commit",
          run: async () => {
            const paused: PausedJournal = {
              ...factsOf(running),
              state: "paused",
              generation: draft.id,
              pausedAt: new Date().toISOString(),
              steps: clock.timings,
            };
            await record(context, entry, paused);
          },
          // The journal may be there although writing it failed at its last sync. What it names then must not go.
          undo: async () => {
            mayBeNamed = true;
            await record(context, entry, running);
            mayBeNamed = false;
          },
        },
      ].map((step) => clock.step(step)),
    );
  } catch (error) {
    throw asDiskError(error);
  } finally {
    draft.release();
  }
  entry.gone.abort();
  context.log.info({ sandboxId: running.sandboxId, generation: draft.id, steps: clock.timings }, "paused");
  try {
    const freeing = new StepClock(context, "pause", null);
    await tryAll(
      [
        { name: "free what it held", run: () => freeHoldings(context, running.sandboxId, holdings) },
        {
          name: "seal the disk's layer",
          run: () => disks.sealTop(diskAfterSwitch(running.disk, draft.diskLayer)),
        },
        { name: "remove the overlay", run: () => removeOverlays(holdings.files) },
      ].map((step) => freeing.step(step)),
    );
  } catch (error) {
    // It is paused all the same. What is left is freed by the resume, the destroy, or the next start.
    context.log.error({ sandboxId: running.sandboxId, err: error }, "could not free everything of a paused sandbox");
  }
  // Not before: what is not sealed is not folded.
  context.folds.add(draft.id);
}
