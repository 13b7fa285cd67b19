/** How much of a copy has passed. */

export class Meter {
  /** Where known; an archive has somewhat more than the files in it. */
  totalBytes: number | null = null;
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** The same pieces, counted as they are taken. */
  async *count(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
    for await (const piece of pieces) {
      this.#bytes += piece.byteLength;
      yield piece;
    }
  }
}
