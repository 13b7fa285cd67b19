/**
 * Freezes a copy of a sandbox that runs on: its state becomes a generation, its overlay a layer, and what it writes from then on goes to
 * a new overlay. The guest stands still only while its memory is written.
 */
import { runSteps } from "@wrenn/system";
import { removeOverlay } from "../disks/overlay-files.ts";
import { asDiskError } from "../memory/sizes.ts";
import type { HeldGeneration } from "../memory/generations.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import type { MemoryImage } from "../memory/pager.ts";
import { captureMemory, captureSubject, contentOf, keepWorkingSet } from "./capture.ts";
import { record, required, type SandboxContext, type SandboxEntry } from "./context.ts";
import { settleDiskSwitch } from "./disk-switch.ts";
import { syncGuest } from "./guest-client.ts";
import type { RunningJournal } from "./journal.ts";
import { asSandboxDisk, diskAfterSwitch } from "./own-disk.ts";
import { StepClock } from "./step-clock.ts";

export async function copyRunning(
  context: SandboxContext,
  entry: SandboxEntry,
  running: RunningJournal,
  signal: AbortSignal,
): Promise<HeldGeneration> {
  const disks = context.disks.of(running.disk.format);
  const { holdings } = entry;
  const { files } = holdings;
  const vm = required(holdings.vm, "VM");
  const { uid, address } = required(holdings.slot, "slot");
  const subject = captureSubject(running, holdings);
  const draft = await context.generations.begin();
  const present = asSandboxDisk(running, files, running.disk, uid);
  const next = asSandboxDisk(running, files, diskAfterSwitch(running.disk, draft.diskLayer), uid);
  const clock = new StepClock(context, "copy", signal);
  let memory: MemoryImage | null = null;
  let manifest: GenerationManifest | null = null;
  let journal = running;
  const note = async (next: RunningJournal): Promise<void> => {
    await record(context, entry, next);
    journal = next;
  };
  const settle = async (): Promise<void> => {
    journal = await settleDiskSwitch(context, journal, files);
    entry.journal = journal;
  };
  try {
    await runSteps(
      [
        { name: "sync the guest", run: () => syncGuest(address, context.log) },
        { name: "keep the disk", run: () => disks.keepAsLayer(present, draft.diskLayer) },
        {
          name: "make the next disk",
          run: async () => {
            await removeOverlay(next.file);
            await disks.createOverlay(next);
          },
          undo: settle,
        },
        {
          name: "journal the switch",
          run: () => note({ ...journal, disk: { ...journal.disk, switchingTo: draft.diskLayer } }),
        },
        { name: "freeze", run: () => vm.freeze(), undo: () => vm.thaw() },
        {
          name: "capture the memory",
          run: async () => {
            memory = await captureMemory(context, subject, draft, signal);
          },
        },
        { name: "switch the disk", run: () => disks.switchOverlay(vm, next) },
        { name: "thaw", run: () => vm.thaw() },
        { name: "settle the disk", run: settle },
        {
          name: "publish",
          run: async () => {
            manifest = await draft.publish(contentOf(subject, draft, required(memory, "captured memory")));
            await keepWorkingSet(context, subject, draft);
          },
        },
        {
          name: "journal the copy",
          run: () => note({ ...journal, memory: { ...journal.memory, parent: draft.id } }),
        },
      ].map((step) => clock.step(step)),
    );
  } catch (error) {
    // Once the disk has been switched, the sandbox needs the layer that its overlay has become. The rest is garbage.
    const { layers, switchingTo } = journal.disk;
    if (layers.includes(draft.diskLayer) || switchingTo === draft.diskLayer) draft.release();
    else await draft.discard();
    throw asDiskError(error);
  }
  context.log.info({ sandboxId: running.sandboxId, generation: draft.id, steps: clock.timings }, "copied");
  return { manifest: required<GenerationManifest>(manifest, "generation"), letGo: () => draft.release() };
}
