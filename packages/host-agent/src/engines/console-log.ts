/** A guest's console on the host's disk: appended to as it is read from the engine, and bounded. */
import { appendFile, open, stat, truncate } from "node:fs/promises";
import { isMissingFile, writeDurably } from "@wrenn/system";

/** At the bound, the older half is dropped. */
const maxBytes = 1_048_576;

/** What an error carries: enough for a kernel's panic with its call trace, of which some have more than 60 lines. */
const tail = { lines: 100, bytes: 8_192 } as const;

/** CSI sequences and control characters, other than newline and tab, that have no place in an error message. */
// oxlint-disable-next-line no-control-regex
const controlSequences = /\u001b\[[0-9;?]*[ -/]*[@-~]|[\u0000-\u0008\u000b-\u001f\u007f]/g;

export class ConsoleLog {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  async append(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return;
    await appendFile(this.#file, bytes, { mode: 0o600 });
    const { size } = await stat(this.#file);
    if (size > maxBytes) await writeDurably(this.#file, await readEnd(this.#file, maxBytes / 2));
  }

  /** The last lines, as text that may be shown. */
  async tail(): Promise<string> {
    return consoleTail(await readEnd(this.#file, tail.bytes * 2));
  }
}

export function consoleTail(bytes: Buffer): string {
  const text = bytes.toString("utf8").replaceAll("\r\n", "\n").replaceAll(controlSequences, "");
  return text.trimEnd().split("\n").slice(-tail.lines).join("\n").slice(-tail.bytes);
}

/** Empties a log that something else appends to, when it has grown past the bound. */
export async function boundLog(file: string): Promise<void> {
  try {
    const { size } = await stat(file);
    if (size > maxBytes) await truncate(file, 0);
  } catch (error) {
    if (!isMissingFile(error)) throw error;
  }
}

/** The last bytes of a file; none when there is no such file. */
export async function readEnd(file: string, bytes: number): Promise<Buffer> {
  let handle;
  try {
    handle = await open(file, "r");
  } catch (error) {
    if (isMissingFile(error)) return Buffer.alloc(0);
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const length = Math.min(size, bytes);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}
