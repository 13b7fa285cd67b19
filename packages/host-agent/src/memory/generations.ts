/** The committed states on this machine. */
import type { GenerationId, LayerId } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { type GenerationManifest, layersOf, type MachineIdentity } from "./manifest.ts";
import type { MemoryImage, PagerProgram } from "./pager.ts";
import { Pins } from "./pins.ts";

/** What the maker of a generation knows of it; the rest of the manifest follows from its files. */
export interface GenerationContent extends Omit<
  GenerationManifest,
  "version" | "id" | "createdAt" | "memory" | "deviceState" | "newBytes"
> {
  /** What the capture into the draft's header and memory layer told. */
  readonly memory: MemoryImage;
  /** The file that the engine wrote. It is copied, because the engine may still have it open. */
  readonly deviceState: string;
}

/** A generation in the making. What it has on the disk is safe from garbage collection until `release` or `discard`. */
export interface GenerationDraft {
  readonly id: GenerationId;
  /** Where the capture writes the header. */
  readonly header: string;
  /** What a capture and a disk that is kept may become. Neither needs to be used. */
  readonly memoryLayer: LayerId;
  readonly diskLayer: LayerId;
  /**
   * The commit: makes everything last, then publishes the manifest. Stays held until `release`.
   * @throws WrennError `host_out_of_disk`, `internal`; nothing is committed then, once `discard` has been called
   */
  publish(content: GenerationContent): Promise<GenerationManifest>;
  /** To be called once a journal, template or golden record names the generation. */
  release(): void;
  /** Removes all of it, committed or not. Can be called again. */
  discard(): Promise<void>;
}

export class Generations {
  /** What is in use by this process. */
  readonly pins = new Pins();
  readonly layout: Layout;
  readonly #pager: PagerProgram;

  private constructor(layout: Layout, pager: PagerProgram) {
    this.layout = layout;
    this.#pager = pager;
  }

  static async open(layout: Layout, pager: PagerProgram): Promise<Generations> {
    return new Generations(layout, pager);
  }

  async begin(): Promise<GenerationDraft> {
    throw new Error("begin");
  }

  /** @throws WrennError `snapshot_damaged` when it is missing or not whole */
  async read(id: GenerationId): Promise<GenerationManifest> {
    throw new Error(id);
  }

  /**
   * Runs work on a generation whose files stay while it runs, even if the generation is folded or removed meanwhile. Whoever starts
   * from a generation or captures on top of one does it inside.
   * @throws WrennError `snapshot_damaged` when it is missing or not whole
   */
  async using<Result>(id: GenerationId, work: (manifest: GenerationManifest) => Promise<Result>): Promise<Result> {
    const manifest = await this.read(id);
    const release = this.pins.hold([id, ...layersOf(manifest)]);
    try {
      return await work(manifest);
    } finally {
      release();
    }
  }

  /** @throws WrennError `snapshot_incompatible`, naming both machines; `snapshot_damaged` when a file is missing or changed */
  async assertRestorable(manifest: GenerationManifest, machine: MachineIdentity): Promise<void> {
    throw new Error(`${manifest.id} ${machine.cpu}`);
  }

  /**
   * Reads a flat image whole before this process has it mapped for the first time: nobody checks what an engine maps.
   * @throws WrennError `snapshot_damaged`
   */
  async verifyOnce(manifest: GenerationManifest, signal: AbortSignal): Promise<void> {
    await this.#pager.verify(this.layout.generation(manifest.id).header(manifest.memory.header), signal);
  }

  /** Keeps what a pager recorded of the pages that were needed first, for the next start from this generation. */
  async keepWorkingSet(id: GenerationId, recorded: string): Promise<void> {
    throw new Error(`${id} ${recorded}`);
  }
}
