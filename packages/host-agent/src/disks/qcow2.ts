/**
 * A sandbox's own disk: a qcow2 overlay over its template's root filesystem, or over a layer that an earlier overlay has become. Both are
 * shared and never written.
 */
import { constants } from "node:fs";
import { type FileHandle, link, lstat, open, rm } from "node:fs/promises";
import path from "node:path";
import { deadlines, WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile, type LayerLayout, makeDirectory, run, syncDirectory } from "@wrenn/system";
import { passable } from "../directories.ts";
import { diskToolUid, enginesGid } from "../engines/users.ts";
import { type Backing, backingOf, diskBytes, emptyOverlay, headerClusterBytes } from "./qcow2-header.ts";

export interface OverlayOptions {
  readonly file: string;
  readonly backing: Backing;
  readonly sizeMib: number;
  /** The engine's user, who alone may read and write it. */
  readonly uid: number;
}

const mebibyte = 1_048_576;

/** Read by engines, through their group, and written by nobody. */
const sealedMode = 0o440;

/** POSIX counts `st_blocks` in units of 512 bytes on Linux (stat(2)). */
const blockBytes = 512;

/** Makes an overlay in which nothing has been written. There must be nothing of that name. */
export async function createOverlay(options: OverlayOptions): Promise<void> {
  const { file, backing, sizeMib, uid } = options;
  const { pieces, fileBytes } = emptyOverlay(backing, sizeMib * mebibyte);
  // Exclusively: the engine's user could have put a link in its place.
  const handle = await open(file, "wx", 0o600);
  try {
    for (const { offset, bytes } of pieces) await handle.write(bytes, 0, bytes.length, offset);
    await handle.truncate(fileBytes);
    await handle.chown(uid, uid);
  } finally {
    await handle.close();
  }
}

/**
 * Gives the overlay a second name, under which it outlives its sandbox, and makes its content last. The engine may still have it open, but
 * must be frozen, or have left it for another overlay.
 */
export async function keepAsDiskLayer(overlay: string, layer: LayerLayout): Promise<void> {
  await makeDirectory(layer.directory, passable);
  await link(overlay, layer.disk);
  await withRegularFile(layer.disk, (handle) => handle.sync());
  await syncEntry(layer);
}

/**
 * Takes the layer from the user whose engine wrote it. Once that has let go of it, nobody can change it. Can be done again.
 * @param backing what the overlay was laid over. An engine that its guest has taken over could have written another file's name there, and
 * who opens the layer would read that file.
 * @throws WrennError `snapshot_damaged`
 */
export async function sealDiskLayer(layer: LayerLayout, backing: Backing): Promise<void> {
  await withRegularFile(layer.disk, async (handle) => {
    await handle.chown(0, enginesGid);
    await handle.chmod(sealedMode);
    const named = await readBacking(handle);
    if (named?.path === backing.path && named.format === backing.format) return;
    throw damaged(layer.disk, `does not name ${backing.path} as the disk below it`);
  });
}

export interface FlattenOptions {
  /** The top of a chain of sealed layers. */
  readonly top: string;
  /** The raw root filesystem at the bottom, which stays a file of its own. */
  readonly rootfs: string;
  readonly target: LayerLayout;
}

/**
 * Makes one sealed layer over the root filesystem with all that a chain of layers holds.
 * @throws WrennError `snapshot_damaged` when the chain is not what it should be, `subprocess_failed` with qemu-img's words
 */
export async function flattenDisk({ top, rootfs, target }: FlattenOptions, signal: AbortSignal): Promise<void> {
  const sizeBytes = await assertChain(top, rootfs);
  await makeDirectory(target.directory, passable);
  await removeOverlay(target.disk);
  const backing = { path: top, format: "qcow2" } as const;
  await createOverlay({ file: target.disk, backing, sizeMib: sizeBytes / mebibyte, uid: diskToolUid });
  // Only what differs from the root filesystem is written. (`convert -B` would leave out what the layers between hold.)
  const rebase = ["rebase", "-q", "-f", "qcow2", "-F", "raw", "-b", rootfs, target.disk];
  const user = ["--reuid", String(diskToolUid), "--regid", String(enginesGid), "--clear-groups"];
  const without = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"];
  await run("setpriv", [...user, ...without, "qemu-img", ...rebase], { timeoutMs: deadlines.memoryFold, signal });
  await sealDiskLayer(target, { path: rootfs, format: "raw" });
  await withRegularFile(target.disk, (handle) => handle.sync());
  await syncEntry(target);
}

/** Follows a chain from its top to the root filesystem, sealed files all, and returns the disk's size. */
async function assertChain(top: string, rootfs: string): Promise<number> {
  let sizeBytes = 0;
  for (let next: Backing = { path: top, format: "qcow2" }; next.path !== rootfs;) {
    const file = next.path;
    const below = await withRegularFile(file, async (handle) => {
      const { uid, mode } = await handle.stat();
      if (uid !== 0 || (mode & 0o777) !== sealedMode) throw damaged(file, "can be changed by its engine's user");
      if (sizeBytes === 0) sizeBytes = diskBytes(await readHeader(handle));
      return readBacking(handle);
    });
    if (below === null) throw damaged(file, "is no disk's layer");
    next = below;
  }
  return sizeBytes;
}

async function readBacking(handle: FileHandle): Promise<Backing | null> {
  return backingOf(await readHeader(handle));
}

async function readHeader(handle: FileHandle): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(headerClusterBytes), 0, headerClusterBytes, 0);
  return buffer.subarray(0, bytesRead);
}

/** Opens what may be read and is no link, nor anything else that the engine's user could have put there. */
async function withRegularFile<Result>(file: string, work: (handle: FileHandle) => Promise<Result>): Promise<Result> {
  let handle;
  try {
    handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isMissingFile(error)) throw damaged(file, "is missing", error);
    throw hasErrno(error, "ELOOP") ? damaged(file, "is a link", error) : error;
  }
  try {
    if (!(await handle.stat()).isFile()) throw damaged(file, "is no regular file");
    return await work(handle);
  } finally {
    await handle.close();
  }
}

async function syncEntry(layer: LayerLayout): Promise<void> {
  for (const directory of [layer.directory, path.dirname(layer.directory)]) await syncDirectory(directory);
}

function damaged(file: string, what: string, cause?: unknown): WrennError {
  return new WrennError("snapshot_damaged", { message: `${file} ${what}.`, details: { file }, cause });
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
