/**
 * While a VM runs on, its overlay becomes a layer and its other overlay takes its place. What is written down before the engine switches,
 * and what the engine in fact has open, tell which way a switch that was cut short is to be ended.
 */
import { fileIdentity, type Layout, openFileIdentities, type SandboxLayout, syncDirectory } from "@wrenn/system";
import { removeOverlay } from "../disks/qcow2.ts";
import { sealTop } from "./backing.ts";
import { type DeadJournal, type Disk, type RunningJournal, writeJournal } from "./journal.ts";

/** The file that a sandbox's writes go to. */
export function overlayOf(files: SandboxLayout, { overlay }: Pick<Disk, "overlay">): string {
  return files[overlay];
}

/** The file that they go to after the next switch. */
export function nextOverlayOf(files: SandboxLayout, disk: Pick<Disk, "overlay">): string {
  return files[turn(disk)];
}

/**
 * Ends a switch of disks, forwards where the engine writes to the next overlay already, or is gone: then the next overlay over the
 * present one is the same disk. Resolves with the journal that is then written down.
 */
export async function settleDiskSwitch<Settled extends RunningJournal | DeadJournal>(
  layout: Layout,
  journal: Settled,
  files: SandboxLayout,
): Promise<Settled> {
  const { switchingTo, layers, rootfs } = journal.disk;
  if (switchingTo === null) return journal;
  const present = overlayOf(files, journal.disk);
  const next = nextOverlayOf(files, journal.disk);
  const made = await fileIdentity(next);
  const isSwitched =
    made !== null && (journal.state === "dead" || (await openFileIdentities(journal.process.pid)).has(made));
  const disk: Disk = isSwitched
    ? { overlay: turn(journal.disk), layers: [switchingTo, ...layers], rootfs, switchingTo: null }
    : { ...journal.disk, switchingTo: null };
  if (isSwitched) await sealTop(layout, disk);
  const settled = { ...journal, disk };
  await writeJournal(layout, settled);
  // Only now: until then it was not certain which of the two is to stay.
  await removeOverlay(isSwitched ? present : next);
  await syncDirectory(files.directory);
  return settled;
}

function turn({ overlay }: Pick<Disk, "overlay">): Disk["overlay"] {
  return overlay === "overlay" ? "otherOverlay" : "overlay";
}
