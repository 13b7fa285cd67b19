/** What is in use at this moment, by this process, and so must not be collected as garbage, although no root may name it yet. */
import type { GenerationId, LayerId } from "@wrenn/contract";

export class Pins {
  readonly #counts = new Map<string, number>();

  /** Holds all of them until the function that it returns is called; more calls of that do nothing. */
  hold(ids: readonly (GenerationId | LayerId)[]): () => void {
    for (const id of ids) this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      for (const id of ids) {
        const count = (this.#counts.get(id) ?? 0) - 1;
        if (count > 0) this.#counts.set(id, count);
        else this.#counts.delete(id);
      }
    };
  }

  has(id: string): boolean {
    return this.#counts.has(id);
  }

  all(): ReadonlySet<string> {
    return new Set(this.#counts.keys());
  }
}
