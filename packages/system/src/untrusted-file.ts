/** Files in directories where a less trusted user may put whatever they like, such as a link to a file that only root may read. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile } from "./durable-file.ts";

/**
 * The content of an ordinary file that has this name only; null when there is no file.
 * @throws WrennError `engine_failed` for anything else, and for a file that is longer than `maxBytes`
 */
export async function readUntrusted(file: string, maxBytes: number): Promise<Buffer | null> {
  const refuse = (why: string, cause?: unknown): WrennError =>
    new WrennError("engine_failed", { message: `${file} ${why}.`, cause });
  let handle;
  try {
    // Without O_NONBLOCK a pipe in the file's place would be waited for.
    handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw hasErrno(error, "ELOOP") ? refuse("is a link", error) : error;
  }
  try {
    const found = await handle.stat();
    if (!found.isFile() || found.nlink > 1) throw refuse("is not an ordinary file");
    // One byte more than allowed, because it may grow while it is read.
    const content = Buffer.alloc(Math.min(found.size, maxBytes) + 1);
    let length = 0;
    while (length < content.length) {
      const { bytesRead } = await handle.read(content, length, content.length - length, length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > maxBytes) throw refuse(`is longer than ${maxBytes} bytes`);
    return content.subarray(0, length);
  } finally {
    await handle.close();
  }
}
