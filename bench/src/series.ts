/** Samples of both sides, taken in turns, because machines drift; a round that fails is counted and left out on both. */
import type { Measurement } from "./report.ts";

export class Series {
  readonly ours: number[] = [];
  readonly bare: number[] = [];
  failures = 0;

  /** One round. Each side returns its milliseconds. */
  async add(sides: { bare(): Promise<number>; ours(): Promise<number> }): Promise<void> {
    try {
      const bare = await sides.bare();
      const ours = await sides.ours();
      this.bare.push(bare);
      this.ours.push(ours);
    } catch (error) {
      this.failures += 1;
      console.error(`a round failed: ${String(error)}`);
    }
  }

  measurement(name: string, target: number | null): Measurement {
    return { name, unit: "ms", ours: this.ours, bare: this.bare, target, failures: this.failures };
  }
}
