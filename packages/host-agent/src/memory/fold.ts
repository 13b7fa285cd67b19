/**
 * Writes states that are spread over many layers anew, as one, in the background and one at a time. What it replaces is garbage as soon as
 * nobody uses it; a fold that is cut short leaves the old files in use and its own as garbage.
 */
import { rm, statfs } from "node:fs/promises";
import {
  type DiskFormat,
  type GenerationId,
  generationLimits,
  hostReserve,
  type LayerId,
  newId,
  WrennError,
} from "@wrenn/contract";
import type { BaseLogger } from "pino";
import type { FlattenOptions } from "../disks/disks.ts";
import { runPlainly, type RunStep } from "../run-step.ts";
import { diskBytes } from "./draft.ts";
import type { Generations } from "./generations.ts";
import type { GenerationManifest } from "./manifest.ts";
import type { PagerProgram } from "./pager.ts";
import { usedBytesIn } from "./sizes.ts";

export interface FoldContext {
  readonly generations: Generations;
  readonly pager: Pick<PagerProgram, "fold">;
  /** Makes one sealed layer over the root filesystem of a chain of disk layers. */
  readonly flattenDisk: (format: DiskFormat, options: FlattenOptions, signal: AbortSignal) => Promise<void>;
  /** What it has replaced may be needed no more. */
  readonly suspectGarbage?: () => void;
  readonly runStep?: RunStep;
  readonly log: BaseLogger;
}

export interface FoldDemand {
  /** Folds memory of more than one layer, even within the limits: what is started often is mapped, not served page by page. */
  readonly flat?: boolean;
}

export class FoldQueue {
  readonly #context: FoldContext;
  readonly #waiting = new Map<GenerationId, FoldDemand>();
  readonly #closing = new AbortController();
  #work: Promise<void> | null = null;

  constructor(context: FoldContext) {
    this.#context = context;
  }

  /** Folds the generation when its turn comes, if it needs it then. */
  add(id: GenerationId, demand: FoldDemand = {}): void {
    if (this.#closing.signal.aborted) return;
    this.#waiting.set(id, { flat: demand.flat === true || this.#waiting.get(id)?.flat === true });
    this.#work ??= this.#foldAll();
  }

  /** Resolves when nothing is left to fold. */
  async idle(): Promise<void> {
    await this.#work;
  }

  /** Ends the fold under way and takes no more. What it has written is removed. */
  async close(): Promise<void> {
    this.#waiting.clear();
    this.#closing.abort(new WrennError("sandbox_busy", { message: "The host agent stops." }));
    await this.#work;
  }

  async #foldAll(): Promise<void> {
    const { generations, log } = this.#context;
    for (;;) {
      const [next] = this.#waiting;
      if (next === undefined) break;
      const [id, demand] = next;
      this.#waiting.delete(id);
      try {
        await generations.using(id, (manifest) => this.#fold(manifest, demand));
      } catch (error) {
        // Nothing is lost by it: the generation is as it was, only slower to start.
        log.warn({ generation: id, err: error }, "not folded");
      }
    }
    this.#work = null;
  }

  async #fold(manifest: GenerationManifest, { flat = false }: FoldDemand): Promise<void> {
    const { generations, runStep = runPlainly, log } = this.#context;
    const memory = this.#mustFoldMemory(manifest, flat) ? newId("layer") : null;
    const disk = manifest.disk.layers.length > generationLimits.layers ? newId("layer") : null;
    const made = [memory, disk].filter((layer) => layer !== null);
    if (made.length === 0) return;
    const replaced = [
      ...(memory === null ? [] : manifest.memory.layers),
      ...(disk === null ? [] : manifest.disk.layers),
    ];
    await this.#assertSpace(replaced);

    const release = generations.pins.hold(made);
    try {
      const parts = await this.#write(manifest, memory, disk);
      // From here on the new layers may be the ones that count, so nothing but garbage collection may remove them.
      await runStep("fold", "publish", () => generations.republish(manifest, parts));
    } finally {
      release();
    }
    log.info({ generation: manifest.id, replaced: replaced.length, made: made.length }, "folded");
    this.#context.suspectGarbage?.();
  }

  #mustFoldMemory({ memory }: GenerationManifest, flat: boolean): boolean {
    const { layers, extents } = generationLimits;
    return !memory.flat && (flat || memory.layers.length > layers || memory.extents > extents);
  }

  async #write(
    manifest: GenerationManifest,
    memory: LayerId | null,
    disk: LayerId | null,
  ): Promise<Pick<GenerationManifest, "memory" | "disk">> {
    const { generations, runStep = runPlainly } = this.#context;
    try {
      return {
        memory:
          memory === null
            ? manifest.memory
            : await runStep("fold", "write the memory", () => this.#foldMemory(manifest, memory)),
        disk:
          disk === null ? manifest.disk : await runStep("fold", "write the disk", () => this.#foldDisk(manifest, disk)),
      };
    } catch (error) {
      // At once, because it may be what has filled the disk.
      for (const layer of [memory, disk]) {
        if (layer !== null) await rm(generations.layout.layer(layer).directory, { recursive: true, force: true });
      }
      throw error;
    }
  }

  async #foldMemory(manifest: GenerationManifest, layer: LayerId): Promise<GenerationManifest["memory"]> {
    const { generations, pager } = this.#context;
    const files = generations.layout.generation(manifest.id);
    // A name of its own: whoever reads the old header goes on.
    const header = `memory-${layer}.header`;
    const request = { header: files.header(manifest.memory.header), layer, output: files.header(header) };
    return { header, ...(await pager.fold(request, this.#closing.signal)) };
  }

  async #foldDisk(manifest: GenerationManifest, layer: LayerId): Promise<GenerationManifest["disk"]> {
    const { generations, flattenDisk } = this.#context;
    const { rootfs, format } = manifest.disk;
    const options = { chain: manifest.disk, sizeMib: manifest.diskMib, target: layer };
    await flattenDisk(format, options, this.#closing.signal);
    const layers = [layer];
    return { layers, rootfs, format, bytes: await diskBytes(generations.layout, { layers, format }) };
  }

  /** A fold takes at most what it replaces, and is no reason to fill the disk. */
  async #assertSpace(replaced: readonly LayerId[]): Promise<void> {
    const { layout } = this.#context.generations;
    const sizes = await Promise.all(replaced.map((layer) => usedBytesIn(layout.layer(layer).directory)));
    const needed = sizes.reduce((sum, bytes) => sum + bytes, hostReserve.diskBytes);
    const { bavail, bsize } = await statfs(layout.layers);
    if (bavail * bsize >= needed) return;
    const message = `Folding takes up to ${needed - hostReserve.diskBytes} bytes.`;
    throw new WrennError("host_out_of_disk", { message });
  }
}
