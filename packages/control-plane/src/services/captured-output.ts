/** The beginning of what a command wrote. What comes after it is counted and dropped, so that memory stays bounded. */
import { isUtf8 } from "node:buffer";
import type { Encoding } from "@wrenn/contract";

const firstCapacity = 4_096;

export interface Captured {
  /** Text where the bytes are UTF-8, else base64. */
  readonly text: string;
  readonly encoding: Encoding;
  /** How many bytes there were, kept or not. */
  readonly bytes: number;
  readonly truncated: boolean;
}

export class CapturedOutput {
  readonly #maxBytes: number;
  /** One buffer that grows: a list of what came would cost a program that writes single bytes many times its output. */
  #kept: Buffer = Buffer.alloc(0);
  #keptBytes = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  push(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    const taken = bytes.subarray(0, this.#maxBytes - this.#keptBytes);
    if (taken.length === 0) return;
    this.#reserve(this.#keptBytes + taken.length);
    this.#kept.set(taken, this.#keptBytes);
    this.#keptBytes += taken.length;
  }

  result(): Captured {
    const kept = this.#kept.subarray(0, this.#keptBytes);
    const truncated = this.#bytes > this.#keptBytes;
    const whole = truncated ? withoutPartOfCharacter(kept) : kept;
    const said = { bytes: this.#bytes, truncated };
    if (isUtf8(whole)) return { text: whole.toString("utf8"), encoding: "utf-8", ...said };
    return { text: kept.toString("base64"), encoding: "base64", ...said };
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#kept.length) return;
    const capacity = Math.min(Math.max(bytes, 2 * this.#kept.length, firstCapacity), this.#maxBytes);
    const grown = Buffer.allocUnsafe(capacity);
    this.#kept.copy(grown, 0, 0, this.#keptBytes);
    this.#kept = grown;
  }
}

/** Without the first bytes of a UTF-8 character whose last ones are missing. */
function withoutPartOfCharacter(bytes: Buffer): Buffer {
  for (let back = 1; back <= Math.min(3, bytes.length); back += 1) {
    const byte = bytes[bytes.length - back] ?? 0;
    const isContinuation = (byte & 0b1100_0000) === 0b1000_0000;
    if (isContinuation) continue;
    return back < lengthOfCharacter(byte) ? bytes.subarray(0, bytes.length - back) : bytes;
  }
  return bytes;
}

function lengthOfCharacter(firstByte: number): number {
  if (firstByte >= 0b1111_0000) return 4;
  if (firstByte >= 0b1110_0000) return 3;
  return firstByte >= 0b1100_0000 ? 2 : 1;
}
