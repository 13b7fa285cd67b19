/** Where Wrenn keeps everything: how much room there is, what the file system can, and who gets there. */
import { readFile, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { hostReserve } from "@wrenn/contract";
import { isMissingFile, type Layout, socketPathsFit } from "@wrenn/system";
import { type Examination, failed, ok, type Outcome, warning } from "./check.ts";

const gibibyte = 1_073_741_824;

/** A root filesystem, packages and kernel take about 1 GiB; a sandbox's overlay begins at a few MiB. */
const setUpBytes = 2 * gibibyte;

export const storageExaminations: readonly Examination[] = [
  {
    name: "disk",
    look: async ({ root }) => {
      const { bavail, bsize } = await statfs(await nearestThatExists(root));
      return judgeSpace(root, bavail * bsize);
    },
  },
  {
    name: "file system",
    look: async ({ root }) => {
      const mounts = await readFile("/proc/self/mountinfo", "utf8");
      return judgeFileSystem(root, fileSystemOf(await nearestThatExists(root), mounts));
    },
  },
  { name: "directory", look: checkDirectory },
];

/** @param freeBytes what root may still write */
export function judgeSpace(root: string, freeBytes: number): Outcome {
  const found = `${(freeBytes / gibibyte).toFixed(1)} GiB free in ${root}`;
  const remedy = `Free space in ${root}, or choose another place with WRENN_DIR.`;
  const why =
    "A host whose disk is full creates, pauses and copies nothing, and guests that write are told of I/O errors.";
  if (freeBytes < hostReserve.diskBytes) return failed(found, remedy, why);
  return freeBytes < setUpBytes ? warning(found, remedy, why) : ok(found);
}

/** The type of the file system that a path lies on, by the longest mount point that it lies below. */
export function fileSystemOf(place: string, mountInfo: string): string {
  let best = { at: "", type: "unknown" };
  for (const line of mountInfo.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const at = before.split(" ")[4];
    const [type = ""] = after.split(" ");
    if (at === undefined) continue;
    const holds = at === "/" || place === at || place.startsWith(`${at}/`);
    // Of two on one mount point, the later covers the other.
    if (holds && at.length >= best.at.length) best = { at, type };
  }
  return best.type;
}

/** Those on which a file can be copied by reference (FICLONE, ioctl_ficlonerange(2)), if they were made so. */
const referencing: ReadonlySet<string> = new Set(["xfs", "btrfs", "bcachefs"]);
const inMemory: ReadonlySet<string> = new Set(["tmpfs", "ramfs"]);
const overNetwork: ReadonlySet<string> = new Set(["nfs", "nfs4", "cifs", "9p", "fuse.sshfs"]);

export function judgeFileSystem(root: string, type: string): Outcome {
  if (inMemory.has(type)) {
    const why = "Paused sandboxes and snapshots are to outlive a restart of the machine.";
    return warning(`${root} lies in memory (${type}) and is lost with it`, "Choose a WRENN_DIR on a disk.", why);
  }
  if (overNetwork.has(type)) {
    const why = "A pause is safe when its disk says so, and locks and sockets must work as on a disk of this machine.";
    return warning(`${root} lies on another machine (${type})`, "Choose a WRENN_DIR on a disk of this machine.", why);
  }
  if (referencing.has(type)) return ok(`${type}, which can copy files by reference`);
  return ok(`${type}; XFS with reflinks would make folding and copying frozen memory cheaper`);
}

/** Engines and PostgreSQL run under users of their own, so everyone must be able to pass through to Wrenn's files. */
async function checkDirectory(layout: Layout): Promise<Outcome> {
  if (!socketPathsFit(layout)) {
    return failed(
      `${layout.root} is too long a path: unix sockets in it exceed 107 bytes`,
      "Choose a shorter WRENN_DIR.",
    );
  }
  for (let at = await nearestThatExists(layout.root); at !== "/"; at = path.dirname(at)) {
    const { mode } = await stat(at);
    if ((mode & 0o001) === 0) {
      return failed(
        `other users, as engines are, cannot pass through ${at}`,
        `chmod o+x ${at}, or choose another WRENN_DIR.`,
      );
    }
  }
  return ok(layout.root);
}

async function nearestThatExists(place: string): Promise<string> {
  for (let at = place; ; at = path.dirname(at)) {
    try {
      await stat(at);
      return at;
    } catch (error) {
      if (!isMissingFile(error) || at === "/") throw error;
    }
  }
}
