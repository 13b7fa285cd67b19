/**
 * While a VM runs on, its overlay becomes a layer and its other overlay takes its place. What is written down before the switch, and what
 * the engine's writes in fact go to, tell which way a switch that was cut short is to be ended.
 */
import { fileIdentity, type SandboxLayout, syncDirectory } from "@wrenn/system";
import { removeOverlay } from "../disks/overlay-files.ts";
import type { SandboxContext } from "./context.ts";
import { type DeadJournal, type RunningJournal, writeJournal } from "./journal.ts";
import { diskAfterSwitch, overlayOf } from "./own-disk.ts";

/**
 * Ends a switch of disks, forwards where the VM writes to the next overlay already, or is gone: then the next overlay over the present one
 * is the same disk. Resolves with the journal that is then written down.
 */
export async function settleDiskSwitch<Settled extends RunningJournal | DeadJournal>(
  { layout, disks }: Pick<SandboxContext, "layout" | "disks">,
  journal: Settled,
  files: SandboxLayout,
): Promise<Settled> {
  const { switchingTo, format } = journal.disk;
  if (switchingTo === null) return journal;
  const kind = disks.of(format);
  const switched = diskAfterSwitch(journal.disk, switchingTo);
  const present = overlayOf(files, journal.disk);
  const next = overlayOf(files, switched);
  const isMade = (await fileIdentity(next)) !== null;
  const isSwitched = isMade && (journal.state === "dead" || (await kind.finishSwitch(journal, next)));
  const disk = isSwitched ? switched : { ...journal.disk, switchingTo: null };
  if (isSwitched) await kind.sealTop(disk);
  const settled = { ...journal, disk };
  await writeJournal(layout, settled);
  // Only now: until then it was not certain which of the two is to stay.
  await removeOverlay(isSwitched ? present : next);
  await syncDirectory(files.directory);
  return settled;
}
