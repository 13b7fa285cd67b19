/**
 * Makes a VM's memory ready to be mapped or served: blank for a boot, one file where the frozen image is flat, its layers where they are few
 * pieces that are quickly checked, else a pager.
 */
import { type GenerationId, type LayerId, type MemoryBackend, WrennError } from "@wrenn/contract";
import { makeBlankMemory } from "../engines/blank-memory.ts";
import type { CgroupMembership } from "../engines/cgroups.ts";
import type { GuestMemory } from "../engines/engine.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import { pagerOf } from "../memory/pager.ts";
import { type Holdings, required, type SandboxContext } from "./context.ts";
import type { MemorySource, SandboxFacts } from "./journal.ts";

/** Which way frozen memory comes back: `auto` maps what is quickly mapped and serves all others. */
export const memoryChoices = ["auto", "file", "uffd"] as const;
export type MemoryChoice = (typeof memoryChoices)[number];

/**
 * Pieces of an image that are mapped at most: each is a mapping of the engine's process, of which the kernel allows 65,530
 * (vm.max_map_count). At about 1 µs each they cost less than the start of a pager.
 */
const mostPieces = 8_192;

/** What is read for the first time before it is mapped, at most: in about 10 ms, which serving costs as well. */
const mostUnverifiedBytes = 16_777_216;

export interface MemoryRequest {
  readonly facts: SandboxFacts;
  /** Whether the engine can map the layers of an image. */
  readonly mapsLayers: boolean;
  /** Null for a boot. */
  readonly manifest: GenerationManifest | null;
  readonly uid: number;
  readonly cgroup: CgroupMembership;
}

/** What opening memory needs of its host. */
export type MemoryContext = Pick<SandboxContext, "generations" | "layout" | "memoryChoice" | "servesPages"> & {
  readonly pager: Pick<SandboxContext["pager"], "start">;
  readonly folds: Pick<SandboxContext["folds"], "add" | "idle">;
};

export interface OpenMemory {
  /** For the journal. */
  readonly source: MemorySource;
  /** For the engine. */
  readonly guest: GuestMemory;
}

/**
 * Does ahead what needs neither slot nor cgroup: reads what is to be mapped and has never been read.
 * @throws WrennError `snapshot_damaged`
 */
export async function checkMemory(
  context: MemoryContext,
  request: Pick<MemoryRequest, "manifest" | "mapsLayers">,
): Promise<void> {
  if (request.manifest !== null) await mapImage(context, request, request.manifest);
}

/** @throws WrennError `snapshot_damaged`, or of the pager's start */
export async function openMemory(
  context: MemoryContext,
  request: MemoryRequest,
  holdings: Holdings,
  signal: AbortSignal,
): Promise<OpenMemory> {
  const { facts, manifest } = request;
  const { folds, generations } = context;
  if (manifest === null) {
    const { blankMemory } = holdings.files;
    await makeBlankMemory(blankMemory, facts.memoryMib);
    return mapFile(null, null, blankMemory);
  }
  const mapped = await mapImage(context, request, manifest);
  if (mapped !== null) return mapped;
  if (usableBackends(context).includes("uffd")) return serveImage(context, request, manifest, holdings, signal);
  folds.add(manifest.id, { flat: true });
  await folds.idle();
  const folded = await mapImage(context, request, await generations.read(manifest.id));
  return required(folded, "flat image");
}

/** Null where it had better be served, or has to be folded first. */
async function mapImage(
  { generations, layout, memoryChoice, servesPages }: MemoryContext,
  { mapsLayers }: Pick<MemoryRequest, "mapsLayers">,
  manifest: GenerationManifest,
): Promise<OpenMemory | null> {
  if (memoryChoice === "uffd") return null;
  const { id, memory } = manifest;
  if (!memory.flat) {
    if (!mapsLayers || memory.extents > mostPieces) return null;
    const canBeServed = usableBackends({ memoryChoice, servesPages }).includes("uffd");
    if (canBeServed && (await generations.unverifiedBytes(manifest)) > mostUnverifiedBytes) return null;
  }
  const inPlace = await generations.verifyOnce(manifest);
  const [only] = memory.layers;
  if (memory.flat && only !== undefined) return mapFile(only, id, layout.layer(only).memory);
  if (inPlace === null) return null;
  const layers = memory.layers.map((each) => layout.layer(each).memory);
  return {
    source: { backend: "file", mapped: inPlace, layered: true, pager: null, parent: id },
    guest: { backend: "layers", header: layout.generation(id).header(memory.header), layers },
  };
}

async function serveImage(
  { layout, pager }: MemoryContext,
  { uid, cgroup }: MemoryRequest,
  { id, memory }: GenerationManifest,
  holdings: Holdings,
  signal: AbortSignal,
): Promise<OpenMemory> {
  const { files } = holdings;
  const generation = layout.generation(id);
  const { identity } = await pager.start(
    {
      files,
      uid,
      header: generation.header(memory.header),
      workingSet: generation.workingSet,
      record: files.workingSet,
      cgroup,
    },
    signal,
  );
  holdings.pager = identity;
  return {
    source: { backend: "uffd", mapped: null, layered: false, pager: identity, parent: id },
    guest: { backend: "uffd", socket: files.pagerSocket },
  };
}

/**
 * Does work that needs the guest's memory. An engine that its pager has ended, or a guest that stands still, does not know why.
 * @throws WrennError `snapshot_damaged` when memory could not be served
 */
export async function whileServed(holdings: Holdings, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    signal.throwIfAborted();
    const { pager, files } = holdings;
    const status = pager === null ? null : await pagerOf(pager, files).status();
    if (status?.state !== "failed") throw error;
    const message = status.message ?? "The frozen memory cannot be read.";
    throw new WrennError("snapshot_damaged", { message, cause: error });
  }
}

/** In which ways frozen memory can come back on this host. */
export function usableBackends({
  memoryChoice,
  servesPages,
}: Pick<SandboxContext, "memoryChoice" | "servesPages">): MemoryBackend[] {
  // A cold boot maps a file in any case.
  return servesPages && memoryChoice !== "file" ? ["file", "uffd"] : ["file"];
}

function mapFile(layer: LayerId | null, parent: GenerationId | null, path: string): OpenMemory {
  const source = { backend: "file", mapped: layer, layered: false, pager: null, parent } as const;
  return { source, guest: { backend: "file", path } };
}
