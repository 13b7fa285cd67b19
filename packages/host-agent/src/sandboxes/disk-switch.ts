/**
 * While a VM runs on, its overlay becomes a layer and a new overlay takes its place. What is written down before the engine switches, and
 * what the engine in fact has open, tell which way a switch that was cut short is to be ended.
 */
import { readdir, rename, stat } from "node:fs/promises";
import { isMissingFile, type Layout, type SandboxLayout, syncDirectory } from "@wrenn/system";
import { removeOverlay } from "../disks/qcow2.ts";
import { sealTop } from "./backing.ts";
import { type DeadJournal, type RunningJournal, writeJournal } from "./journal.ts";

/**
 * Ends a switch of disks, forwards where the engine writes to the new overlay already, or is gone: then the new overlay over the old
 * one is the same disk. Resolves with the journal that is then written down.
 */
export async function settleDiskSwitch<Settled extends RunningJournal | DeadJournal>(
  layout: Layout,
  journal: Settled,
  files: SandboxLayout,
): Promise<Settled> {
  const { switchingTo, layers } = journal.disk;
  if (switchingTo === null) return journal;
  const layer = layout.layer(switchingTo);
  const [next, current, kept] = await Promise.all([inode(files.nextOverlay), inode(files.overlay), inode(layer.disk)]);
  const isRenamed = next === null && current !== kept;
  const isSwitched = next !== null && (journal.state === "dead" || (await hasOpen(journal.process.pid, next)));
  if (isSwitched) {
    await rename(files.nextOverlay, files.overlay);
    await syncDirectory(files.directory);
  } else {
    await removeOverlay(files.nextOverlay);
  }
  const forwards = isRenamed || isSwitched;
  const disk = { ...journal.disk, layers: forwards ? [switchingTo, ...layers] : layers, switchingTo: null };
  if (forwards) await sealTop(layout, disk);
  const settled = { ...journal, disk };
  await writeJournal(layout, settled);
  return settled;
}

/** Device and number of a file's inode; null when there is no such file. */
async function inode(file: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(file);
    return `${dev}:${ino}`;
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}

async function hasOpen(pid: number, wanted: string): Promise<boolean> {
  const descriptors = `/proc/${pid}/fd`;
  for (const name of await readdir(descriptors)) if ((await inode(`${descriptors}/${name}`)) === wanted) return true;
  return false;
}
