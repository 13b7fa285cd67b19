/** Removes frozen states that nothing needs any more, in the background, after whatever may have left some. */
import { setTimeout as delay } from "node:timers/promises";
import { intervals } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { GarbageCollector } from "../memory/collect.ts";
import type { GoldenRecords } from "../memory/golden.ts";
import { collectRoots, type JournalRoots } from "../memory/roots.ts";

export interface GarbageOptions {
  readonly layout: Layout;
  readonly collector: GarbageCollector;
  readonly golden: GoldenRecords;
  /** What the sandboxes of this host need. Null while that is not known, for then nothing is garbage. */
  readonly journals: () => JournalRoots[] | null;
  readonly log: BaseLogger;
}

/** Something is removed when two looks in a row find that nothing needs it. */
const looks = 2;

export class Garbage {
  readonly #with: GarbageOptions;
  readonly #closing = new AbortController();
  #looksLeft = 0;
  #work: Promise<void> | null = null;

  constructor(options: GarbageOptions) {
    this.#with = options;
  }

  /** Something may have become garbage. */
  suspect(): void {
    this.#looksLeft = looks;
    if (this.#closing.signal.aborted) return;
    this.#work ??= this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#work;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    try {
      while (this.#looksLeft > 0 && !signal.aborted) {
        this.#looksLeft -= 1;
        await this.#look();
        await delay(intervals.garbage, undefined, { ref: false, signal });
      }
    } catch (error) {
      if (!signal.aborted) this.#with.log.error({ err: error }, "could not remove what is not needed any more");
    } finally {
      this.#work = null;
    }
  }

  async #look(): Promise<void> {
    const { layout, collector, golden, journals } = this.#with;
    const needed = journals();
    if (needed === null) return;
    await golden.evict(needed);
    await collector.sweep(() => collectRoots(layout, journals() ?? needed), { signal: this.#closing.signal });
  }
}
