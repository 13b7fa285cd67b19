/** What frozen states take up on the disk, and what it means when there is no more of it. */
import { lstat } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile } from "@wrenn/system";
import { namesIn } from "./read-manifest.ts";

/** POSIX counts `st_blocks` in units of 512 bytes on Linux (stat(2)). */
const blockBytes = 512;

/** Bytes that a directory's files take up, never their apparent sizes: memory has holes. 0 where there is no such directory. */
export async function usedBytesIn(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await namesIn(directory)) {
    try {
      bytes += (await lstat(path.join(directory, name))).blocks * blockBytes;
    } catch (error) {
      if (!isMissingFile(error)) throw error;
    }
  }
  return bytes;
}

/** The error as callers of the API may see it. */
export function asDiskError(error: unknown): unknown {
  return isDiskFull(error) ? new WrennError("host_out_of_disk", { cause: error }) : error;
}

/** Also somewhere below: where undoing failed for the same reason, what failed first is the cause of an error that tells both. */
function isDiskFull(error: unknown): boolean {
  if (hasErrno(error, "ENOSPC") || hasErrno(error, "EDQUOT")) return true;
  if (error instanceof AggregateError && error.errors.some((each) => isDiskFull(each))) return true;
  return error instanceof Error && error.cause !== undefined && isDiskFull(error.cause);
}
