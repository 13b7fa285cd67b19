/** Moves what is in one directory into another of the same file system, where files replace files and directories are merged. */
import { chmod, lstat, readdir, rename } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { isMissingFile } from "@wrenn/system";

/**
 * A link in the destination is never followed: an earlier copy may have brought it, and it may lead anywhere.
 * @throws WrennError `wrong_file_type` when a file is in the way of a directory or the other way round; what was moved until
 * then stays
 */
export async function mergeDirectory(from: string, to: string): Promise<void> {
  await merge(Buffer.from(from), Buffer.from(to));
}

/** Paths are bytes: names in a sandbox need not be UTF-8. */
async function merge(from: Buffer, to: Buffer): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true, encoding: "buffer" })) {
    const [source, destination] = [join(from, entry.name), join(to, entry.name)];
    const found = await kindOf(destination);
    if (entry.isDirectory() && found === "directory") {
      // One that may not be written to could not be emptied.
      await chmod(source, 0o700);
      await merge(source, destination);
    } else if (found === null || (!entry.isDirectory() && found === "other")) {
      await rename(source, destination);
    } else {
      throw new WrennError("wrong_file_type", {
        message: `${destination.toString()} is ${found === "directory" ? "a" : "no"} directory, and what is copied is ${found === "directory" ? "none" : "one"}.`,
        suggestion: "Remove it first, or choose another path.",
      });
    }
  }
}

function join(directory: Buffer, name: Buffer): Buffer {
  return Buffer.concat([directory, Buffer.from("/"), name]);
}

async function kindOf(path: Buffer): Promise<"directory" | "other" | null> {
  try {
    return (await lstat(path)).isDirectory() ? "directory" : "other";
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}
