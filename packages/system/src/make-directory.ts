/** Making directories in such a way that a failure is called by its name. */
import { mkdir, stat } from "node:fs/promises";
import path from "node:path";
import { hasErrno } from "./durable-file.ts";

/**
 * Makes a directory, with what is missing above it. One that is there stays as it is. Node's own `recursive` does the same, but reports a
 * full disk as ENOENT of the directory that it was to make (seen with Node 20), so that nobody would take it for one.
 */
export async function makeDirectory(directory: string, mode = 0o777): Promise<void> {
  try {
    await mkdir(directory, { mode });
  } catch (error) {
    if (hasErrno(error, "EEXIST") && (await stat(directory)).isDirectory()) return;
    const parent = path.dirname(directory);
    if (!hasErrno(error, "ENOENT") || parent === directory) throw error;
    await makeDirectory(parent, mode);
    await makeDirectory(directory, mode);
  }
}
