/**
 * A guest's console on the host's disk: appended to as it is read from the engine, and bounded. A byte's place in the file is its
 * place in all that was ever printed: what is dropped becomes a hole, so that a place once named stays right, whatever happens to
 * the host agent.
 */
import { appendFile, open, stat, truncate } from "node:fs/promises";
import { isMissingFile, writeDurably } from "@wrenn/system";
import { completePart, plainText, withoutFirstLine } from "./console-text.ts";

/** What is kept at most. At the bound, the older half is dropped. */
const maxBytes = 1_048_576;
const halfBytes = maxBytes / 2;

/** What an error carries: enough for a kernel's panic with its call trace, of which some have more than 60 lines. */
const tail = { lines: 100, bytes: 8_192 } as const;

/** A piece of what was printed. Offsets count bytes since the sandbox was started. */
export interface ConsolePart {
  readonly text: string;
  readonly offset: number;
  readonly nextOffset: number;
}

export class ConsoleLog {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  async append(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return;
    await appendFile(this.#file, bytes, { mode: 0o600 });
    const { size } = await stat(this.#file);
    const first = firstKept(size);
    if (first === firstKept(size - bytes.length)) return;
    await writeDurably(this.#file, await readEnd(this.#file, size - first), { holeBytes: first });
  }

  /**
   * What was printed from an offset on. Where that has been dropped, it begins with the first whole line there is; an offset beyond
   * the end counts as the end. It ends where neither a character nor a terminal sequence is cut in two.
   */
  async read(offset: number, maxLength: number): Promise<ConsolePart> {
    const { from, bytes } = await readPart(this.#file, (size) => {
      const first = Math.min(Math.max(offset, firstKept(size)), size);
      return { from: first, length: Math.min(maxLength, size - first) };
    });
    const whole = from > offset ? withoutFirstLine(bytes) : bytes;
    const begin = from + bytes.length - whole.length;
    const complete = completePart(whole);
    return { text: plainText(complete), offset: begin, nextOffset: begin + complete.length };
  }

  /** The last lines, as text that may be shown. */
  async tail(): Promise<string> {
    return consoleTail(await readEnd(this.#file, tail.bytes * 2));
  }
}

export function consoleTail(bytes: Buffer): string {
  return plainText(bytes).trimEnd().split("\n").slice(-tail.lines).join("\n").slice(-tail.bytes);
}

/** Where the bytes begin that are kept of a log of this size: a multiple of half the bound, so that it need not be written down. */
function firstKept(size: number): number {
  return Math.max(0, Math.floor(size / halfBytes) - 1) * halfBytes;
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
  const part = await readPart(file, (size) => {
    const length = Math.min(size, bytes);
    return { from: size - length, length };
  });
  return part.bytes;
}

/** The bytes that `choose` picks, given the file's size; none when there is no such file. */
async function readPart(
  file: string,
  choose: (size: number) => { readonly from: number; readonly length: number },
): Promise<{ from: number; bytes: Buffer }> {
  let handle;
  try {
    handle = await open(file, "r");
  } catch (error) {
    if (isMissingFile(error)) return { from: 0, bytes: Buffer.alloc(0) };
    throw error;
  }
  try {
    const { size } = await handle.stat();
    const { from, length } = choose(size);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, from);
    return { from, bytes: buffer.subarray(0, bytesRead) };
  } finally {
    await handle.close();
  }
}
