/**
 * Freezes a copy of a sandbox that runs on: its state becomes a generation, its overlay a layer, and what it writes from then on goes to
 * a new overlay. The guest stands still only while its memory is written.
 */
import { runSteps } from "@wrenn/system";
import { createOverlay, keepAsDiskLayer, removeOverlay } from "../disks/qcow2.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import { captureState, type CapturedState, describeGeneration } from "./capture.ts";
import { record, required, type SandboxContext, type SandboxEntry } from "./context.ts";
import { asDiskError } from "./disk-errors.ts";
import { settleDiskSwitch } from "./disk-switch.ts";
import { syncGuest } from "./guest-client.ts";
import type { RunningJournal } from "./journal.ts";
import { captureSubject } from "./running.ts";
import { StepClock } from "./step-clock.ts";

/** A generation that garbage collection leaves alone until it is let go of. */
export interface HeldGeneration {
  readonly manifest: GenerationManifest;
  letGo(): void;
}

export async function copyRunning(
  context: SandboxContext,
  entry: SandboxEntry & { journal: RunningJournal },
  signal: AbortSignal,
): Promise<HeldGeneration> {
  const { layout, generations } = context;
  const { holdings } = entry;
  const { files } = holdings;
  const vm = required(holdings.vm, "VM");
  const { uid, address } = required(holdings.slot, "slot");
  const running = entry.journal;
  const subject = captureSubject(running, holdings);
  const draft = await generations.begin();
  const layer = layout.layer(draft.diskLayer);
  const clock = new StepClock(signal);
  let captured: CapturedState | null = null;
  const settle = (): Promise<void> => settleDiskSwitch(context, entry, files);
  try {
    await runSteps(
      [
        { name: "sync the guest", run: () => syncGuest(address, context.log) },
        {
          name: "keep the disk",
          run: () => keepAsDiskLayer(files.overlay, layer),
        },
        {
          name: "make the next disk",
          run: async () => {
            await removeOverlay(files.nextOverlay);
            const backing = { path: layer.disk, format: "qcow2" } as const;
            await createOverlay({ file: files.nextOverlay, backing, sizeMib: running.diskMib, uid });
          },
          undo: settle,
        },
        {
          name: "journal the switch",
          run: () => record(context, entry, { ...running, disk: { ...running.disk, switchingTo: draft.diskLayer } }),
        },
        { name: "freeze", run: () => vm.freeze(), undo: () => vm.thaw() },
        {
          name: "capture the memory",
          run: async () => {
            captured = await captureState(context, subject, draft, signal);
          },
        },
        { name: "switch the disk", run: () => vm.switchDisk(files.nextOverlay) },
        { name: "thaw", run: () => vm.thaw() },
        { name: "settle the disk", run: settle },
        {
          name: "publish",
          run: () => draft.publish(describeGeneration(subject, draft, required(captured, "captured memory"))),
        },
        {
          name: "journal the copy",
          run: () =>
            record(context, entry, { ...entry.journal, memory: { ...entry.journal.memory, parent: draft.id } }),
        },
      ].map((step) => clock.step(step)),
    );
  } catch (error) {
    await draft.discard();
    draft.unpin();
    throw asDiskError(error);
  }
  context.log.info({ sandboxId: running.sandboxId, generation: draft.id, steps: clock.timings }, "copied");
  return { manifest: await generations.read(draft.id), letGo: () => draft.unpin() };
}
