/** The committed states on this machine. */
import { createHash } from "node:crypto";
import { lstat, readFile } from "node:fs/promises";
import { type GenerationId, type LayerId, WrennError } from "@wrenn/contract";
import {
  isMissingFile,
  type Layout,
  makeDirectory,
  readUntrusted,
  syncDirectory,
  syncFilesIn,
  writeDurably,
  writeJsonDurably,
} from "@wrenn/system";
import { passable } from "../directories.ts";
import { assertFiles, diskBytes, GenerationDraft } from "./draft.ts";
import { type GenerationManifest, layersOf, type MachineIdentity } from "./manifest.ts";
import type { PagerProgram } from "./pager.ts";
import { Pins } from "./pins.ts";
import { readManifest } from "./read-manifest.ts";
import { asDiskError, usedBytesIn } from "./sizes.ts";

/** A hint is not worth more; it names some thousands of pages. */
const maxWorkingSetBytes = 16_777_216;

/** How many checked layers and images are remembered: many times what sandboxes of one host start from. */
const mostRemembered = 4_096;

interface LayerFile {
  readonly layer: LayerId;
  /** As `fileAsItIs` says. */
  readonly file: string;
}

/** A frozen state that garbage collection leaves alone, whatever else happens to it. */
export interface HeldGeneration {
  readonly manifest: GenerationManifest;
  readonly letGo: () => void;
}

export class Generations {
  /** What is in use by this process. */
  readonly pins = new Pins();
  readonly layout: Layout;
  readonly #pager: Pick<PagerProgram, "verify">;
  /** Files of layers that were read whole, as they were then. */
  readonly #read = new Set<string>();
  /** By all files of an image, as they were then: the check of what is mapped, and what came of it. */
  readonly #verified = new Map<string, Promise<LayerId | null>>();

  private constructor(layout: Layout, pager: Pick<PagerProgram, "verify">) {
    this.layout = layout;
    this.#pager = pager;
  }

  static async open(layout: Layout, pager: Pick<PagerProgram, "verify">): Promise<Generations> {
    await makeDirectory(layout.generations, 0o700);
    await makeDirectory(layout.golden, 0o700);
    // Engines open the disks in here, which they are told the names of.
    await makeDirectory(layout.layers, passable);
    await syncDirectory(layout.root);
    return new Generations(layout, pager);
  }

  async begin(): Promise<GenerationDraft> {
    return GenerationDraft.begin(this.layout, this.pins);
  }

  /** @throws WrennError `snapshot_damaged` when it is missing or not whole */
  async read(id: GenerationId): Promise<GenerationManifest> {
    const manifest = await readManifest(this.layout, id);
    if (manifest !== null) return manifest;
    const message = "The frozen state has no manifest.";
    throw new WrennError("snapshot_damaged", { message, details: { generation: id } });
  }

  /**
   * Runs work on a generation whose files stay while it runs, even if the generation is folded or removed meanwhile. Whoever starts
   * from a generation or captures on top of one does it inside.
   * @throws WrennError `snapshot_damaged` when it is missing or not whole
   */
  async using<Result>(id: GenerationId, work: (manifest: GenerationManifest) => Promise<Result>): Promise<Result> {
    const { manifest, letGo } = await this.hold(id);
    try {
      return await work(manifest);
    } finally {
      letGo();
    }
  }

  /**
   * A generation whose files stay until it is let go of.
   * @throws WrennError `snapshot_damaged` when it is missing or not whole
   */
  async hold(id: GenerationId): Promise<HeldGeneration> {
    for (;;) {
      const manifest = await this.read(id);
      const letGo = this.pins.hold([id, ...layersOf(manifest)]);
      try {
        // Between reading and holding it may have been folded, and its old layers collected.
        const now = await this.read(id);
        if (layersOf(now).join() === layersOf(manifest).join()) return { manifest: now, letGo };
      } catch (error) {
        letGo();
        throw error;
      }
      letGo();
    }
  }

  /**
   * Gives a generation other files with the same content. The old ones stay, for those who use them, until they are collected.
   * @throws WrennError `host_out_of_disk`; the old or the new manifest counts then
   */
  async republish(current: GenerationManifest, parts: Pick<GenerationManifest, "memory" | "disk">): Promise<void> {
    const files = this.layout.generation(current.id);
    const before = new Set(layersOf(current));
    try {
      await assertFiles(this.layout, files.header(parts.memory.header), parts);
      for (const layer of layersOf(parts)) {
        if (!before.has(layer)) await syncFilesIn(this.layout.layer(layer).directory);
      }
      await syncDirectory(this.layout.layers);
      await syncFilesIn(files.directory);
      await writeJsonDurably(files.manifest, { ...current, ...parts }, 0o400);
    } catch (error) {
      throw asDiskError(error);
    }
  }

  /** @throws WrennError of `assertSameMachine`; `snapshot_damaged` when a file is missing or changed */
  async assertRestorable(manifest: GenerationManifest, machine: MachineIdentity): Promise<void> {
    assertSameMachine(manifest.machine, machine);
    const files = this.layout.generation(manifest.id);
    await assertFiles(this.layout, files.header(manifest.memory.header), manifest);
    const { layers, bytes } = manifest.disk;
    const cut = (await diskBytes(this.layout, manifest.disk)).findIndex((found, index) => found !== bytes[index]);
    if (cut !== -1) {
      const message = "A layer of the disk is not as long as it was.";
      throw new WrennError("snapshot_damaged", { message, details: { generation: manifest.id, layer: layers[cut] } });
    }
    const content = await readFile(files.deviceState).catch((cause: unknown) => {
      throw damagedDeviceState(manifest.id, cause);
    });
    const sha256 = createHash("sha256").update(content).digest("hex");
    if (sha256 !== manifest.deviceState.sha256) throw damagedDeviceState(manifest.id, undefined);
  }

  /**
   * Reads an image whole before this process has it mapped for the first time, or again after a file of it has changed: nobody checks what
   * an engine maps. What a pager serves it checks itself.
   * @returns a layer whose parts all lie at their own addresses, by which mapped memory is found again; null where there is none
   * @throws WrennError `snapshot_damaged`
   */
  async verifyOnce({ id, memory }: GenerationManifest): Promise<LayerId | null> {
    const header = this.layout.generation(id).header(memory.header);
    const layers = await this.#filesOf(memory.layers);
    const key = [await fileAsItIs(header), ...layers.map(({ file }) => file)].join();
    let verified = this.#verified.get(key);
    if (verified === undefined) {
      verified = this.#verify(header, layers);
      this.#verified.set(key, verified);
      forgetOldest(this.#verified);
      // It may be mended, or was only out of time.
      verified.catch(() => this.#verified.delete(key));
    }
    return verified;
  }

  /** What `verifyOnce` would have to read, in bytes. */
  async unverifiedBytes({ memory }: GenerationManifest): Promise<number> {
    const unread = (await this.#filesOf(memory.layers)).filter(({ file }) => !this.#read.has(file));
    const sizes = await Promise.all(unread.map(({ layer }) => usedBytesIn(this.layout.layer(layer).directory)));
    return sizes.reduce((sum, bytes) => sum + bytes, 0);
  }

  async #filesOf(layers: readonly LayerId[]): Promise<LayerFile[]> {
    return Promise.all(
      layers.map(async (layer) => ({ layer, file: await fileAsItIs(this.layout.layer(layer).memory) })),
    );
  }

  async #verify(header: string, layers: readonly LayerFile[]): Promise<LayerId | null> {
    const known = layers.filter(({ file }) => this.#read.has(file)).map(({ layer }) => layer);
    const inPlace = await this.#pager.verify(header, known);
    for (const { file } of layers) this.#read.add(file);
    forgetOldest(this.#read);
    return inPlace;
  }

  /** Keeps what a pager recorded of the pages that were needed first, for the next start from this generation. */
  async keepWorkingSet(id: GenerationId, recorded: string): Promise<void> {
    const content = await readUntrusted(recorded, maxWorkingSetBytes);
    if (content === null) return;
    await this.using(id, async () => {
      await writeDurably(this.layout.generation(id).workingSet, content, { mode: 0o400 });
    });
  }
}

/** A file, and what changes when it is written or replaced. @throws WrennError `snapshot_damaged` when it is not there */
async function fileAsItIs(file: string): Promise<string> {
  try {
    const { ino, size, mtimeMs } = await lstat(file);
    return [file, ino, size, mtimeMs].join(":");
  } catch (cause) {
    if (!isMissingFile(cause)) throw cause;
    throw new WrennError("snapshot_damaged", {
      message: "A file of a frozen state is missing.",
      details: { file },
      cause,
    });
  }
}

/** One that is needed again is only checked again. */
function forgetOldest(remembered: Map<string, unknown> | Set<string>): void {
  for (const oldest of remembered.keys()) {
    if (remembered.size <= mostRemembered) return;
    remembered.delete(oldest);
  }
}

/** @throws WrennError `snapshot_incompatible`, naming both machines */
export function assertSameMachine(frozen: MachineIdentity, present: MachineIdentity): void {
  const keys = ["engine", "version", "cpu", "machine"] as const;
  const different = keys.filter((key) => frozen[key] !== present[key]);
  if (different.length === 0) return;
  const named = different.map((key) => `${key} ${frozen[key]}, not ${present[key]}`).join("; ");
  throw new WrennError("snapshot_incompatible", {
    message: `The frozen state needs ${named}.`,
    details: { frozen, host: present, different },
  });
}

function damagedDeviceState(generation: GenerationId, cause: unknown): WrennError {
  const message = "The state of the devices is not what was written.";
  return new WrennError("snapshot_damaged", { message, details: { generation }, cause });
}
