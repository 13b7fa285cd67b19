/**
 * What keeps generations and layers from being garbage: journals of sandboxes, snapshot templates and golden records. What each of them
 * names is kept, with every layer that a named generation's manifest names; nothing is counted anywhere.
 */
import type { GenerationId, LayerId } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { readGoldenRecords } from "./golden-record.ts";
import { layersOf } from "./manifest.ts";
import { readManifest } from "./read-manifest.ts";
import { listSnapshots } from "./snapshot-templates.ts";

export interface Roots {
  readonly generations: ReadonlySet<GenerationId>;
  readonly layers: ReadonlySet<LayerId>;
}

/** What the journal of one sandbox names. */
export interface JournalRoots {
  readonly generations: readonly GenerationId[];
  /** The layers under its overlay, which need one another by path, whatever was folded since. */
  readonly layers: readonly LayerId[];
}

/** All roots. @throws WrennError as `rootsBesideGolden` */
export async function collectRoots(layout: Layout, journals: readonly JournalRoots[]): Promise<Roots> {
  const { generations, layers } = await rootsBesideGolden(layout, journals);
  const golden = (await readGoldenRecords(layout)).map(({ generation }) => generation);
  return { generations: new Set([...generations, ...golden]), layers };
}

/**
 * The roots that are more than a cache.
 * @throws WrennError `snapshot_damaged` for a template that cannot be read: nothing can be said to be garbage then
 */
export async function rootsBesideGolden(layout: Layout, journals: readonly JournalRoots[]): Promise<Roots> {
  const snapshots = (await listSnapshots(layout)).map(({ generation }) => generation);
  return {
    generations: new Set([...journals.flatMap(({ generations }) => generations), ...snapshots]),
    layers: new Set(journals.flatMap(({ layers }) => layers)),
  };
}

/** What is kept, as far as it can be told. */
export interface Reach {
  readonly layers: ReadonlySet<LayerId>;
  /** The header that counts, of each generation that has a manifest. */
  readonly headers: ReadonlyMap<GenerationId, string>;
  /** Generations whose manifests cannot be read, so that nobody knows which layers they need. */
  readonly unreadable: readonly GenerationId[];
}

export async function reachFrom(layout: Layout, roots: Roots): Promise<Reach> {
  const layers = new Set(roots.layers);
  const headers = new Map<GenerationId, string>();
  const unreadable: GenerationId[] = [];
  for (const id of roots.generations) {
    try {
      const manifest = await readManifest(layout, id);
      // Not committed yet, or never: its layers are its draft's, which holds them.
      if (manifest === null) continue;
      headers.set(id, manifest.memory.header);
      for (const layer of layersOf(manifest)) layers.add(layer);
    } catch {
      unreadable.push(id);
    }
  }
  return { layers, headers, unreadable };
}
