/** Which golden snapshots there are, within what they may take of the disk. Removes records only; what they named is then garbage. */
import { rm, utimes } from "node:fs/promises";
import type { GenerationId } from "@wrenn/contract";
import { isMissingFile, type Layout, writeJsonDurably } from "@wrenn/system";
import {
  goldenKey,
  type GoldenRecord,
  type GoldenShape,
  readGoldenRecord,
  readGoldenRecords,
} from "./golden-record.ts";
import { type JournalRoots, reachFrom, rootsBesideGolden } from "./roots.ts";
import { asDiskError, usedBytesIn } from "./sizes.ts";

export class GoldenRecords {
  readonly #layout: Layout;
  readonly #maxBytes: number;

  /** @param maxBytes what files that nothing but golden snapshots needs may take up */
  constructor(layout: Layout, maxBytes: number) {
    this.#layout = layout;
    this.#maxBytes = maxBytes;
  }

  async find(shape: GoldenShape): Promise<GoldenRecord | null> {
    return readGoldenRecord(this.#layout, goldenKey(shape));
  }

  /** Makes the generation, which is published, the golden snapshot of its shape. @throws WrennError `host_out_of_disk` */
  async record(shape: GoldenShape, generation: GenerationId): Promise<string> {
    const key = goldenKey(shape);
    try {
      await writeJsonDurably(this.#layout.goldenRecord(key), { version: 1, shape, generation }, 0o600);
    } catch (error) {
      throw asDiskError(error);
    }
    return key;
  }

  /** Notes that it was used now. */
  async touch(key: string): Promise<void> {
    const now = new Date();
    try {
      await utimes(this.#layout.goldenRecord(key), now, now);
    } catch (error) {
      // Forgotten in the meantime.
      if (!isMissingFile(error)) throw error;
    }
  }

  /** Forgets it, for example because its state turned out to be damaged. */
  async forget(key: string): Promise<void> {
    await rm(this.#layout.goldenRecord(key), { force: true });
  }

  /** Forgets those whose shape can come up no more: another kernel, agent, engine or root filesystem is in use. */
  async dropStale(isCurrent: (shape: GoldenShape) => Promise<boolean>): Promise<GoldenRecord[]> {
    const stale: GoldenRecord[] = [];
    for (const record of await readGoldenRecords(this.#layout)) {
      if (await isCurrent(record.shape)) continue;
      await this.forget(record.key);
      stale.push(record);
    }
    return stale;
  }

  /**
   * Forgets the least recently used until the rest fits into the budget. The one used last stays however large it is: it would be made
   * again with every create.
   */
  async evict(journals: readonly JournalRoots[]): Promise<GoldenRecord[]> {
    const records = (await readGoldenRecords(this.#layout)).toSorted(
      (left, right) => right.lastUsed.getTime() - left.lastUsed.getTime(),
    );
    const others = await rootsBesideGolden(this.#layout, journals);
    const counted = new Set<string>([...others.generations, ...(await reachFrom(this.#layout, others)).layers]);
    let bytes = 0;
    const kept = new Set<string>();
    for (const { key, generation } of records) {
      bytes += await this.#addedBytes(generation, counted);
      if (bytes > this.#maxBytes && kept.size > 0) break;
      kept.add(key);
    }
    const evicted = records.filter(({ key }) => !kept.has(key));
    for (const { key } of evicted) await this.forget(key);
    return evicted;
  }

  /** What the generation takes up beyond what is counted already, which it is then, too. */
  async #addedBytes(id: GenerationId, counted: Set<string>): Promise<number> {
    const { layers } = await reachFrom(this.#layout, { generations: new Set([id]), layers: new Set() });
    const places = [
      { id, directory: this.#layout.generation(id).directory },
      ...[...layers].map((layer) => ({ id: layer, directory: this.#layout.layer(layer).directory })),
    ].filter(({ id }) => !counted.has(id));
    for (const { id } of places) counted.add(id);
    const sizes = await Promise.all(places.map(({ directory }) => usedBytesIn(directory)));
    return sizes.reduce((sum, size) => sum + size, 0);
  }
}
