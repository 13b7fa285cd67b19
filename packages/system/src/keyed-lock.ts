/** One operation at a time per key, within this process. */
import { WrennError } from "@wrenn/contract";

export class KeyedLock {
  readonly #holders = new Map<string, string>();

  /**
   * Runs the work unless another operation holds the key.
   * @throws WrennError `sandbox_busy` (409), naming the operation under way.
   */
  async run<Result>(key: string, operation: string, work: () => Promise<Result>): Promise<Result> {
    const holder = this.#holders.get(key);
    if (holder !== undefined) {
      throw new WrennError("sandbox_busy", {
        message: `The sandbox is busy: ${holder} is under way.`,
        details: { operation: holder },
      });
    }
    this.#holders.set(key, operation);
    try {
      return await work();
    } finally {
      this.#holders.delete(key);
    }
  }

  /** The operation under way for a key, if any. */
  holder(key: string): string | undefined {
    return this.#holders.get(key);
  }
}
