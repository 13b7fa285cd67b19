/** Which file a name leads to, and which files a process has open, whatever their names are by now. */
import { readdir, stat } from "node:fs/promises";
import { isMissingFile } from "./durable-file.ts";

/** Device and inode of a file, links followed; null when there is no such file. */
export async function fileIdentity(file: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(file);
    return `${dev}:${ino}`;
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}

/** Those that a process has open; a descriptor that is closed meanwhile is left out. */
export async function openFileIdentities(pid: number): Promise<ReadonlySet<string>> {
  const directory = `/proc/${pid}/fd`;
  const names = await readdir(directory);
  const identities = await Promise.all(names.map((name) => fileIdentity(`${directory}/${name}`)));
  return new Set(identities.filter((identity) => identity !== null));
}
