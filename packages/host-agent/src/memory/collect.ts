/**
 * Removes the generations and layers that no root reaches: mark and sweep, so that there is no count that could be wrong. May be killed
 * anywhere and run again.
 */
import { rm } from "node:fs/promises";
import path from "node:path";
import type { GenerationId, LayerId } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import { runPlainly, type RunStep } from "../run-step.ts";
import type { Generations } from "./generations.ts";
import { idsIn, namesIn } from "./read-manifest.ts";
import { reachFrom, type Roots } from "./roots.ts";
import { usedBytesIn } from "./sizes.ts";

export interface SweepOptions {
  /** Whether to trust one look, as at the start of a host agent, when nothing is under way. */
  readonly atOnce?: boolean;
  readonly signal?: AbortSignal;
}

export interface Swept {
  readonly generations: number;
  readonly layers: number;
  readonly bytes: number;
}

/** Something on the disk that nothing seems to need. */
type Garbage = { readonly place: string } & (
  | { readonly kind: "generation"; readonly id: GenerationId }
  /** A file in a generation's directory that its manifest does not name. */
  | { readonly kind: "file"; readonly id: GenerationId }
  | { readonly kind: "layer"; readonly id: LayerId }
);

export class GarbageCollector {
  readonly #generations: Generations;
  readonly #runStep: RunStep;
  readonly #log: BaseLogger;
  /** What was garbage at the last look. Only what is so twice is removed: a root may have been about to be written. */
  #suspects: ReadonlySet<string> = new Set();

  constructor(generations: Generations, log: BaseLogger, runStep: RunStep = runPlainly) {
    this.#generations = generations;
    this.#runStep = runStep;
    this.#log = log;
  }

  /**
   * One round; never two at a time.
   * @param findRoots called after the disk has been looked at, so that what is made meanwhile is never taken for garbage
   */
  async sweep(findRoots: () => Promise<Roots>, { atOnce = false, signal }: SweepOptions = {}): Promise<Swept> {
    const garbage = await this.#findGarbage(findRoots);
    const removable = garbage.filter(({ place }) => atOnce || this.#suspects.has(place));
    this.#suspects = new Set(garbage.map(({ place }) => place));
    const swept = { generation: 0, layer: 0, file: 0, bytes: 0 };
    for (const item of removable) {
      signal?.throwIfAborted();
      // Somebody may have begun to use it since.
      if (this.#generations.pins.has(item.id)) continue;
      const bytes = await usedBytesIn(item.place);
      await this.#runStep("collect", `remove a ${item.kind}`, () => remove(this.#generations.layout, item));
      swept[item.kind] += 1;
      swept.bytes += bytes;
      this.#log.info({ [item.kind]: item.id, bytes }, "removed what nothing needs any more");
    }
    return { generations: swept.generation, layers: swept.layer, bytes: swept.bytes };
  }

  /** Generations first, so that a manifest never outlives its layers. */
  async #findGarbage(findRoots: () => Promise<Roots>): Promise<Garbage[]> {
    const { layout, pins } = this.#generations;
    // The order matters: what was held when the disk was looked at is held still, or has got a root before roots are looked for.
    const generations = await idsIn("generation", layout.generations);
    const files = await Promise.all(generations.map((id) => filesOf(layout, id)));
    const layers = await idsIn("layer", layout.layers);
    const held = pins.all();
    const roots = await findRoots();
    const kept = new Set([...roots.generations, ...generations.filter((id) => held.has(id))]);
    const reach = await reachFrom(layout, { generations: kept, layers: roots.layers });

    const garbage = generations
      .filter((id) => !kept.has(id))
      .map((id): Garbage => ({ kind: "generation", id, place: layout.generation(id).directory }));
    for (const { id, file } of files.flat()) {
      const header = reach.headers.get(id);
      // A generation that is held may be about to get a new manifest.
      if (header === undefined || held.has(id) || isPartOf(layout, id, header, file)) continue;
      garbage.push({ kind: "file", id, place: file });
    }
    if (reach.unreadable.length > 0) {
      this.#log.error({ generations: reach.unreadable }, "no layer is removed: nobody can tell which ones these need");
      return garbage;
    }
    const unused = layers.filter((id) => !held.has(id) && !reach.layers.has(id));
    return [...garbage, ...unused.map((id): Garbage => ({ kind: "layer", id, place: layout.layer(id).directory }))];
  }
}

async function filesOf(layout: Layout, id: GenerationId): Promise<{ id: GenerationId; file: string }[]> {
  const { directory } = layout.generation(id);
  return (await namesIn(directory)).map((name) => ({ id, file: path.join(directory, name) }));
}

/** Whether a file in a generation's directory counts, and is not, for example, the header of an image that has been folded. */
function isPartOf(layout: Layout, id: GenerationId, header: string, file: string): boolean {
  const { manifest, deviceState, workingSet } = layout.generation(id);
  return [manifest, deviceState, workingSet, layout.generation(id).header(header)].includes(file);
}

async function remove(layout: Layout, { kind, id, place }: Garbage): Promise<void> {
  // First, so that there is never a manifest whose files are gone.
  if (kind === "generation") await rm(layout.generation(id).manifest, { force: true });
  await rm(place, { recursive: true, force: true });
}
