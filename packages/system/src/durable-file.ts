/** Files that must survive a crash: written beside their place, flushed, renamed over it, and the directory flushed. */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, readFile, rename, rm } from "node:fs/promises";
import path from "node:path";

export interface DurableWriteOptions {
  readonly mode?: number;
  /** Zeros in front of the content that take no space on the disk. */
  readonly holeBytes?: number;
}

/** Replaces a file as a whole: a reader, or a machine that lost power, sees the old content or the new. */
export async function writeDurably(
  file: string,
  content: string | Buffer,
  { mode = 0o600, holeBytes = 0 }: DurableWriteOptions = {},
): Promise<void> {
  const temporary = `${file}.${randomBytes(6).toString("hex")}.tmp`;
  try {
    const handle = await open(temporary, "ax", mode);
    try {
      await handle.truncate(holeBytes);
      await handle.writeFile(content);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(path.dirname(file));
}

export async function writeJsonDurably(file: string, value: unknown, mode = 0o600): Promise<void> {
  await writeDurably(file, `${JSON.stringify(value, null, 2)}\n`, { mode });
}

/** The file's parsed JSON, or null when there is no such file. The caller checks its shape. */
export async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as unknown;
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}

/** Makes renames and removals in a directory last. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Makes a directory of files, which other programs may have written, last with all that is in them. At the same time, because a file
 * system that keeps a journal commits it once for all who wait.
 */
export async function syncFilesIn(directory: string): Promise<void> {
  const syncFile = async (name: string): Promise<void> => {
    const handle = await open(path.join(directory, name), constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  };
  await Promise.all([...(await readdir(directory)).map(syncFile), syncDirectory(directory)]);
}

export function isMissingFile(error: unknown): boolean {
  return hasErrno(error, "ENOENT");
}

/** Whether an error is a failed system call with this errno, as Node reports it. */
export function hasErrno(error: unknown, errno: string): boolean {
  return error instanceof Error && "code" in error && error.code === errno;
}
