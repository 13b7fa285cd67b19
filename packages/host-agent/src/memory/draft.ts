/** A generation in the making, and the commit that ends it. */
import { createHash } from "node:crypto";
import { lstat, mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { type DiskFormat, type GenerationId, type LayerId, newId, WrennError } from "@wrenn/contract";
import { isMissingFile, type Layout, readUntrusted, syncDirectory, syncFilesIn, writeJsonDurably } from "@wrenn/system";
import { type GenerationManifest, generationManifestSchema } from "./manifest.ts";
import type { MemoryImage } from "./pager.ts";
import type { Pins } from "./pins.ts";
import { asDiskError, usedBytesIn } from "./sizes.ts";

/** What the maker of a generation knows of it; the rest of the manifest follows from its files. */
export interface GenerationContent extends Omit<
  GenerationManifest,
  "version" | "id" | "createdAt" | "memory" | "deviceState" | "disk" | "newBytes"
> {
  readonly disk: Omit<GenerationManifest["disk"], "bytes">;
  /** What the capture into the draft's header and memory layer told. */
  readonly memory: MemoryImage;
  /** The file that the engine wrote. It is copied, because the engine may still have it open. */
  readonly deviceState: string;
}

/** QEMU's devices of a microVM take under 1 MiB. */
const maxDeviceStateBytes = 67_108_864;

const headerName = "memory.header";

/** What it has on the disk is safe from garbage collection until `release` or `discard`. */
export class GenerationDraft {
  readonly id: GenerationId = newId("generation");
  /** What a capture and a disk that is kept may become. Neither needs to be used. */
  readonly memoryLayer: LayerId = newId("layer");
  readonly diskLayer: LayerId = newId("layer");
  /** Where the capture writes the header. */
  readonly header: string;
  /** To be called once a journal, template or golden record names the generation. */
  readonly release: () => void;
  readonly #layout: Layout;

  private constructor(layout: Layout, pins: Pins) {
    this.#layout = layout;
    this.header = layout.generation(this.id).header(headerName);
    this.release = pins.hold([this.id, this.memoryLayer, this.diskLayer]);
  }

  static async begin(layout: Layout, pins: Pins): Promise<GenerationDraft> {
    const draft = new GenerationDraft(layout, pins);
    try {
      await mkdir(layout.generation(draft.id).directory, { mode: 0o700 });
      return draft;
    } catch (error) {
      draft.release();
      throw asDiskError(error);
    }
  }

  /**
   * The commit: makes everything last, then publishes the manifest. The draft stays held until `release`.
   * @throws WrennError `host_out_of_disk`, `snapshot_damaged` when a file is missing; nothing is committed once `discard` was called
   */
  async publish(content: GenerationContent): Promise<GenerationManifest> {
    const files = this.#layout.generation(this.id);
    try {
      const deviceState = await this.#keepDeviceState(content.deviceState);
      await assertFiles(this.#layout, this.header, content);
      const newBytes = await this.#makeLast();
      const manifest = generationManifestSchema.parse({
        ...content,
        version: 1,
        id: this.id,
        createdAt: new Date().toISOString(),
        memory: { ...content.memory, header: headerName },
        deviceState,
        disk: { ...content.disk, bytes: await diskBytes(this.#layout, content.disk) },
        newBytes,
      });
      await writeJsonDurably(files.manifest, manifest, 0o400);
      return manifest;
    } catch (error) {
      throw asDiskError(error);
    }
  }

  /** Removes all of it, committed or not. Can be called again. */
  async discard(): Promise<void> {
    const files = this.#layout.generation(this.id);
    // First, so that there is never a manifest whose files are gone.
    await rm(files.manifest, { force: true });
    for (const { directory } of [files, ...this.#newLayers()]) await rm(directory, { recursive: true, force: true });
    this.release();
  }

  async #keepDeviceState(file: string): Promise<GenerationManifest["deviceState"]> {
    const content = await readUntrusted(file, maxDeviceStateBytes);
    if (content === null) throw missing(file);
    await writeFile(this.#layout.generation(this.id).deviceState, content, { mode: 0o400 });
    return { bytes: content.length, sha256: createHash("sha256").update(content).digest("hex") };
  }

  /** @returns how much it takes up */
  async #makeLast(): Promise<number> {
    const { generations, layers } = this.#layout;
    const { directory } = this.#layout.generation(this.id);
    const used = [directory];
    for (const layer of this.#newLayers()) if (await exists(layer.directory)) used.push(layer.directory);
    await Promise.all([...used.map(syncFilesIn), ...[layers, generations].map(syncDirectory)]);
    // Only now: a file system may reserve blocks late.
    const sizes = await Promise.all(used.map((each) => usedBytesIn(each)));
    return sizes.reduce((sum, bytes) => sum + bytes, 0);
  }

  #newLayers(): { readonly directory: string }[] {
    return [this.memoryLayer, this.diskLayer].map((layer) => this.#layout.layer(layer));
  }
}

/**
 * Whether everything that a manifest names is there.
 * @throws WrennError `snapshot_damaged`
 */
export async function assertFiles(
  layout: Layout,
  header: string,
  { memory, disk }: { readonly memory: Pick<MemoryImage, "layers">; readonly disk: GenerationContent["disk"] },
): Promise<void> {
  const files = [
    header,
    ...memory.layers.map((layer) => layout.layer(layer).memory),
    ...disk.layers.map((layer) => layout.layer(layer).disk(disk.format)),
    disk.rootfs,
  ];
  await Promise.all(
    files.map(async (file) => {
      if (!(await exists(file))) throw missing(file);
    }),
  );
}

/** How long the files of layers of a disk are, never their blocks: those a file system may change by itself. */
export async function diskBytes(
  layout: Layout,
  { layers, format }: { readonly layers: readonly LayerId[]; readonly format: DiskFormat },
): Promise<number[]> {
  return Promise.all(layers.map(async (layer) => (await lstat(layout.layer(layer).disk(format))).size));
}

async function exists(file: string): Promise<boolean> {
  try {
    await lstat(file);
    return true;
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw error;
  }
}

function missing(file: string): WrennError {
  return new WrennError("snapshot_damaged", {
    message: `${path.basename(file)} of a frozen state is missing.`,
    details: { file },
  });
}
