/** The server's log files: kept from growing without bound, shown while they grow, quoted when something fails. */
import { copyFile, open, stat, truncate } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { hasErrno, isMissingFile } from "@wrenn/system";

/** A log beyond this size becomes `<name>.1`, in the place of the one before it. */
const rotateAtBytes = 16 * 1_048_576;
const followEveryMs = 200;

/**
 * Moves a log that has grown too large out of the way. Its writer goes on: it appends, so that emptying the file under
 * it is safe, except for the lines of the instant between copying and emptying.
 */
export async function rotateLog(file: string): Promise<void> {
  const size = await sizeOf(file);
  if (size <= rotateAtBytes) return;
  await copyFile(file, `${file}.1`);
  await truncate(file, 0);
}

/** Where a log ends now: what is appended from here on is of what happens next. */
export async function endOfLog(file: string): Promise<number> {
  return sizeOf(file);
}

/** The last lines of a log, behind a position if one is given; an empty text when there are none. */
export async function tailLog(file: string, lineCount: number, position = 0): Promise<string> {
  const tailBytes = 16_384;
  const size = await sizeOf(file);
  const text = await readFrom(file, Math.max(position, size - tailBytes));
  return text.trimEnd().split("\n").slice(-lineCount).join("\n");
}

/** Calls back with each line appended to a log from now on, until aborted. */
export async function followLog(file: string, onLine: (line: string) => void, signal: AbortSignal): Promise<void> {
  let position = await sizeOf(file);
  let partial = "";
  while (!signal.aborted) {
    const size = await sizeOf(file);
    // Smaller than before: it has been rotated.
    if (size < position) position = 0;
    if (size > position) {
      const text = await readFrom(file, position);
      position += Buffer.byteLength(text);
      const lines = (partial + text).split("\n");
      partial = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    }
    await delay(followEveryMs, undefined, { signal }).catch(() => undefined);
  }
}

async function sizeOf(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (error) {
    if (isMissingFile(error) || hasErrno(error, "ENOTDIR")) return 0;
    throw error;
  }
}

async function readFrom(file: string, position: number): Promise<string> {
  let handle;
  try {
    handle = await open(file, "r");
  } catch (error) {
    if (isMissingFile(error)) return "";
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const buffer = Buffer.alloc(Math.max(0, size - position));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    return buffer.subarray(0, bytesRead).toString("utf8");
  } finally {
    await handle.close();
  }
}
