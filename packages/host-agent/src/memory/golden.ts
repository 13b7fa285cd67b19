/** Which golden snapshots there are, within what they may take of the disk. */
import type { GenerationId } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { GoldenRecord, GoldenShape } from "./golden-record.ts";
import type { JournalRoots } from "./roots.ts";

export class GoldenRecords {
  readonly #layout: Layout;
  readonly #maxBytes: number;

  constructor(layout: Layout, maxBytes: number) {
    this.#layout = layout;
    this.#maxBytes = maxBytes;
  }

  async find(shape: GoldenShape): Promise<GoldenRecord | null> {
    throw new Error(JSON.stringify(shape));
  }

  /** Makes the generation, which is published, the golden snapshot of its shape. */
  async record(shape: GoldenShape, generation: GenerationId): Promise<GoldenRecord> {
    throw new Error(JSON.stringify([shape, generation]));
  }

  /** Notes that it was used now. */
  async touch(key: string): Promise<void> {
    throw new Error(key);
  }

  /** Forgets it, for example because its state turned out to be damaged. */
  async forget(key: string): Promise<void> {
    throw new Error(key);
  }

  /** Forgets those whose shape can come up no more. */
  async dropStale(isCurrent: (shape: GoldenShape) => boolean): Promise<GoldenRecord[]> {
    throw new Error(String(isCurrent));
  }

  /** Forgets the least recently used until what only golden snapshots need fits into the budget; the newest use always stays. */
  async evict(journals: readonly JournalRoots[]): Promise<GoldenRecord[]> {
    throw new Error(`${this.#layout.root} ${this.#maxBytes} ${journals.length}`);
  }
}
