/** The server's log files: kept from growing without bound, shown while they grow, quoted when something fails. */
import { copyFile, open, stat, truncate } from "node:fs/promises";
import { StringDecoder } from "node:string_decoder";
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
  const size = await logSize(file);
  if (size <= rotateAtBytes) return;
  await copyFile(file, `${file}.1`);
  await truncate(file, 0);
}

/** The last lines of a log, behind a position if one is given; an empty text when there are none. */
export async function tailLog(file: string, lineCount: number, position = 0): Promise<string> {
  const tailBytes = 16_384;
  const size = await logSize(file);
  const bytes = await readFrom(file, Math.max(position, size - tailBytes));
  return bytes.toString("utf8").trimEnd().split("\n").slice(-lineCount).join("\n");
}

/** Calls back with each line appended to a log from now on, until aborted. */
export async function followLog(file: string, onLine: (line: string) => void, signal: AbortSignal): Promise<void> {
  let position = await logSize(file);
  let partial = "";
  // A read may end within a character.
  let decoder = new StringDecoder("utf8");
  while (!signal.aborted) {
    const size = await logSize(file);
    // Smaller than before: it has been rotated.
    if (size < position) {
      position = 0;
      decoder = new StringDecoder("utf8");
    }
    if (size > position) {
      const bytes = await readFrom(file, position);
      position += bytes.length;
      const lines = (partial + decoder.write(bytes)).split("\n");
      partial = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    }
    await delay(followEveryMs, undefined, { signal }).catch(() => undefined);
  }
}

/** Bytes in a log now, which is where what happens next will be; 0 when there is none. */
export async function logSize(file: string): Promise<number> {
  try {
    return (await stat(file)).size;
  } catch (error) {
    if (isMissingFile(error) || hasErrno(error, "ENOTDIR")) return 0;
    throw error;
  }
}

async function readFrom(file: string, position: number): Promise<Buffer> {
  let handle;
  try {
    handle = await open(file, "r");
  } catch (error) {
    if (isMissingFile(error)) return Buffer.alloc(0);
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const buffer = Buffer.alloc(Math.max(0, size - position));
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, position);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
