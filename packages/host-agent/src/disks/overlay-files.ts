/** Files that sandboxes write to, and the layers that they become: what is the same in every format. */
import { constants } from "node:fs";
import { type FileHandle, link, lstat, open, rm } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile, makeDirectory, syncDirectory } from "@wrenn/system";
import { passable } from "../directories.ts";
import { enginesGid } from "../engines/users.ts";

/** Read by engines, through their group, and written by nobody. */
const sealedMode = 0o440;

/** POSIX counts `st_blocks` in units of 512 bytes on Linux (stat(2)). */
const blockBytes = 512;

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

/** Gives an overlay the name of a layer as well, and makes its content last. */
export async function linkAsLayer(overlay: string, layer: string): Promise<void> {
  await makeDirectory(path.dirname(layer), passable);
  await link(overlay, layer);
  await makeLast(layer);
}

/** Makes the content of a layer last, and its name. */
export async function makeLast(layer: string): Promise<void> {
  await withRegularFile(layer, (handle) => handle.sync());
  const directory = path.dirname(layer);
  for (const each of [directory, path.dirname(directory)]) await syncDirectory(each);
}

/** Takes a layer from the user whose engine wrote it. */
export async function seal(handle: FileHandle): Promise<void> {
  await handle.chown(0, enginesGid);
  await handle.chmod(sealedMode);
}

export async function isSealed(handle: FileHandle): Promise<boolean> {
  const { uid, mode } = await handle.stat();
  return uid === 0 && (mode & 0o777) === sealedMode;
}

/**
 * Opens what may be read and is no link, nor anything else that the engine's user could have put there.
 * @throws WrennError `snapshot_damaged`
 */
export async function withRegularFile<Result>(
  file: string,
  work: (handle: FileHandle) => Promise<Result>,
): Promise<Result> {
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

export function damaged(file: string, what: string, cause?: unknown): WrennError {
  return new WrennError("snapshot_damaged", { message: `${file} ${what}.`, details: { file }, cause });
}
