/** What the lab's supervisor sends: frames of one byte (their kind), four bytes (length, big-endian), and the content. */

export const frameKinds = {
  /** The command is about to be started. */
  R: "ready",
  O: "stdout",
  E: "stderr",
  /** A sign of life, every five seconds. */
  B: "heartbeat",
  /** A piece of the archive of what is brought back. */
  F: "files",
  /** The last: JSON `{code}` or `{signal}`. */
  X: "exit",
} as const;
export type FrameKind = (typeof frameKinds)[keyof typeof frameKinds];

export interface Frame {
  readonly kind: FrameKind;
  readonly content: Buffer;
}

const headerBytes = 5;

/** Puts frames together from pieces of any size. */
export class FrameReader {
  #pieces: Buffer[] = [];
  #bytes = 0;

  /** @throws Error when this is not a frame */
  read(piece: Buffer): Frame[] {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    const frames: Frame[] = [];
    for (let frame = this.#next(); frame !== null; frame = this.#next()) frames.push(frame);
    return frames;
  }

  #next(): Frame | null {
    if (this.#bytes < headerBytes) return null;
    const joined = this.#pieces.length === 1 ? (this.#pieces[0] as Buffer) : Buffer.concat(this.#pieces);
    this.#pieces = [joined];
    const letter = joined.toString("latin1", 0, 1);
    if (!isFrameLetter(letter)) throw new Error(`The VM sent what is no frame: ${joined.toString("latin1", 0, 80)}`);
    const end = headerBytes + joined.readUInt32BE(1);
    if (this.#bytes < end) return null;
    this.#pieces = [joined.subarray(end)];
    this.#bytes -= end;
    return { kind: frameKinds[letter], content: joined.subarray(headerBytes, end) };
  }
}

function isFrameLetter(letter: string): letter is keyof typeof frameKinds {
  return Object.hasOwn(frameKinds, letter);
}
