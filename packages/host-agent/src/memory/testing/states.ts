/** For tests: frozen states whose memory and disk are a few bytes that tell which layer they belong to. */
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import {
  type GenerationId,
  type LayerId,
  minimalTemplateId,
  newId,
  platformTeamId,
  type TeamId,
  type TemplateId,
} from "@wrenn/contract";
import { type Layout, wrennLayout, writeJsonDurably } from "@wrenn/system";
import type { GenerationContent, GenerationDraft } from "../draft.ts";
import { Generations } from "../generations.ts";
import { type GenerationManifest, layersOf, type MachineIdentity } from "../manifest.ts";
import type { FoldRequest, MemoryImage, PagerProgram } from "../pager.ts";
import { idsIn, namesIn, readManifest } from "../read-manifest.ts";

export const testMachine: MachineIdentity = { engine: "qemu-tcg", version: "7.2", cpu: "max", machine: "microvm" };

/** Another program's part: verifies nothing, finds nothing in place, and folds by writing a layer with what marks it. */
export function standInPager(layout: Layout): Pick<PagerProgram, "fold" | "verify"> {
  return {
    verify: async () => null,
    fold: async ({ layer, output }: FoldRequest): Promise<MemoryImage> => {
      await writeMemoryLayer(layout, layer);
      await writeFile(output, "header");
      return { layers: [layer], flat: true, extents: 1 };
    },
  };
}

/** For generations whose chains of disks are short. */
export async function neverFlattened(): Promise<void> {
  throw new Error("No disk needs to be flattened here.");
}

export class TestStates {
  readonly layout: Layout;
  readonly #rootfs: string;
  readonly team: TeamId = newId("team");
  generations: Generations;

  private constructor(layout: Layout, generations: Generations) {
    this.layout = layout;
    this.generations = generations;
    this.#rootfs = rootfsOf(layout);
  }

  static async make(parent = tmpdir()): Promise<TestStates> {
    const root = await mkdtemp(path.join(parent, "wrenn-states-"));
    await chmod(root, 0o711);
    await writeFile(rootfsOf(wrennLayout(root)), "rootfs");
    return TestStates.open(root);
  }

  /** Of what another process made. */
  static async open(root: string): Promise<TestStates> {
    const layout = wrennLayout(root);
    return new TestStates(layout, await Generations.open(layout, standInPager(layout)));
  }

  async remove(): Promise<void> {
    await rm(this.layout.root, { recursive: true });
  }

  /** What a host agent that starts again has: nothing but the disk. */
  async restart(): Promise<void> {
    this.generations = await Generations.open(this.layout, standInPager(this.layout));
  }

  /** Captures into a draft, on top of a generation. */
  async fill(draft: GenerationDraft, parent: GenerationManifest | null, bytes = 100): Promise<GenerationContent> {
    const { layout } = this;
    await writeMemoryLayer(layout, draft.memoryLayer, bytes);
    const disk = layout.layer(draft.diskLayer);
    await mkdir(disk.directory);
    await writeFile(disk.disk("qcow2"), marker(draft.diskLayer, 100));
    await writeFile(draft.header, "header");
    const deviceState = path.join(layout.root, "device-state");
    await writeFile(deviceState, "devices");
    const layers = [draft.memoryLayer, ...(parent?.memory.layers ?? [])];
    return {
      sandboxId: newId("sandbox"),
      template: { teamId: platformTeamId, templateId: minimalTemplateId },
      vcpus: 1,
      memoryMib: 512,
      diskMib: 5_120,
      machine: testMachine,
      memory: { layers, flat: layers.length === 1, extents: layers.length },
      disk: { layers: [draft.diskLayer, ...(parent?.disk.layers ?? [])], rootfs: this.#rootfs, format: "qcow2" },
      deviceState,
    };
  }

  /** A published generation that is held no more, so that it must have a root. */
  async publish(parent: GenerationManifest | null = null, bytes?: number): Promise<GenerationManifest> {
    const draft = await this.generations.begin();
    const manifest = await draft.publish(await this.fill(draft, parent, bytes));
    draft.release();
    return manifest;
  }

  /** Makes a snapshot template, which is a root. */
  async keepAsTemplate(generation: GenerationId): Promise<TemplateId> {
    const template = newId("template");
    const files = this.layout.template(this.team, template);
    await mkdir(files.directory, { recursive: true });
    try {
      await writeJsonDurably(files.manifest, { generation, sizeBytes: 1 });
    } catch (error) {
      // It may be there although writing it failed, and must go before what it names.
      await this.removeTemplate(template);
      throw error;
    }
    return template;
  }

  async removeTemplate(template: TemplateId): Promise<void> {
    await rm(this.layout.template(this.team, template).directory, { recursive: true });
  }

  /** Ids of all generations and layers that have a directory, sorted. */
  async present(): Promise<string[]> {
    const { generations, layers } = this.layout;
    return [...(await namesIn(generations)), ...(await namesIn(layers))].toSorted();
  }

  /** What `present` should be when these generations are kept, and nothing else. */
  async expected(kept: readonly GenerationId[], layers: readonly LayerId[] = []): Promise<string[]> {
    const needed = await Promise.all(kept.map(async (id) => [id, ...layersOf(await this.generations.read(id))]));
    return [...new Set([...needed.flat(), ...layers])].toSorted();
  }

  /** What is wrong with the files of a generation; empty when it can be restored. */
  async flaws(id: GenerationId): Promise<string[]> {
    const manifest = await readManifest(this.layout, id);
    if (manifest === null) return [`${id} has no manifest`];
    const flaws: string[] = [];
    const check = async (file: string, start: string): Promise<void> => {
      const content = await readFile(file, "utf8").catch((error: unknown) => String(error));
      if (!content.startsWith(start)) flaws.push(`${file}: ${content.slice(0, 100)}`);
    };
    for (const layer of manifest.memory.layers) await check(this.layout.layer(layer).memory, layer);
    for (const layer of manifest.disk.layers) await check(this.layout.layer(layer).disk("qcow2"), layer);
    const files = this.layout.generation(id);
    await check(files.header(manifest.memory.header), "header");
    await check(files.deviceState, "devices");
    return flaws;
  }

  /** Files in directories of generations that no manifest names. */
  async strays(): Promise<string[]> {
    const strays: string[] = [];
    for (const id of await idsIn("generation", this.layout.generations)) {
      const manifest = await readManifest(this.layout, id);
      const known = new Set(["manifest.json", "device-state", "working-set", manifest?.memory.header]);
      strays.push(...(await readdir(this.layout.generation(id).directory)).filter((name) => !known.has(name)));
    }
    return strays;
  }
}

async function writeMemoryLayer(layout: Layout, layer: LayerId, bytes = 100): Promise<void> {
  const { directory, memory } = layout.layer(layer);
  await mkdir(directory);
  await writeFile(memory, marker(layer, bytes));
  await writeFile(`${memory}.sums`, "sums");
}

function marker(layer: LayerId, bytes: number): string {
  return layer.padEnd(bytes, ".");
}

function rootfsOf(layout: Layout): string {
  return path.join(layout.root, "rootfs.ext4");
}
