/** Input on its way to a process: in order, one message under way, and what is typed meanwhile goes together as the next. */

/** As much as goes in one message. */
const messageBytes = 262_144;

interface Piece {
  readonly bytes: Uint8Array;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class InputQueue {
  readonly #send: (bytes: Uint8Array) => Promise<unknown>;
  #waiting: Piece[] = [];
  #sending = false;

  constructor(send: (bytes: Uint8Array) => Promise<unknown>) {
    this.#send = send;
  }

  /** Resolves once the guest has taken the bytes. When a message fails, so does all that waited behind it. */
  async write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ bytes, resolve, reject });
      if (!this.#sending) void this.#drain();
    });
  }

  /** Resolves when nothing waits any more, whether it was taken or failed. */
  async settled(): Promise<void> {
    while (this.#sending) await this.write(new Uint8Array()).catch(() => undefined);
  }

  async #drain(): Promise<void> {
    this.#sending = true;
    while (this.#waiting.length > 0) {
      const pieces = this.#waiting;
      this.#waiting = [];
      try {
        for (const message of messagesOf(pieces)) await this.#send(message);
        for (const { resolve } of pieces) resolve();
      } catch (error) {
        // Later input without this would be other input than was meant.
        for (const { reject } of [...pieces, ...this.#waiting]) reject(error);
        this.#waiting = [];
      }
    }
    this.#sending = false;
  }
}

function* messagesOf(pieces: readonly Piece[]): Generator<Uint8Array> {
  const all = concatenate(pieces.map(({ bytes }) => bytes));
  for (let at = 0; at < all.length; at += messageBytes) yield all.subarray(at, at + messageBytes);
}

export function concatenate(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(pieces.reduce((length, { byteLength }) => length + byteLength, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.byteLength;
  }
  return all;
}
