/** A sandbox's own disk: a qcow2 overlay over its template's root filesystem, which is shared and never written. */
import { chmod, chown, lstat, rm } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { isMissingFile, run } from "@wrenn/system";

export interface OverlayOptions {
  readonly file: string;
  /** Absolute path of the raw root filesystem it is laid over. */
  readonly rootfs: string;
  readonly sizeMib: number;
  /** The engine's user, who alone may read and write it. */
  readonly uid: number;
}

/** POSIX counts `st_blocks` in units of 512 bytes on Linux (stat(2)). */
const blockBytes = 512;

export async function createOverlay(options: OverlayOptions): Promise<void> {
  const { file, rootfs, sizeMib, uid } = options;
  await run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", rootfs, "-F", "raw", file, `${sizeMib}M`]);
  await chmod(file, 0o600);
  await chown(file, uid, uid);
}

export async function removeOverlay(file: string): Promise<void> {
  // Recursive: the engine's user could have put a directory in the overlay's place.
  await rm(file, { recursive: true, force: true });
}

/** Bytes the overlay takes up on the host, never its apparent size; 0 when there is none. */
export async function overlayUsedBytes(file: string): Promise<number> {
  try {
    // lstat: the engine's user could have put a link in the overlay's place.
    return (await lstat(file)).blocks * blockBytes;
  } catch (error) {
    if (isMissingFile(error)) return 0;
    throw new WrennError("internal", { message: `The size of ${file} could not be read.`, cause: error });
  }
}
