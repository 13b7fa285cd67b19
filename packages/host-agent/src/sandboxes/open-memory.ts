/** Makes a VM's memory ready to be mapped or served: blank for a boot, one file where the frozen image is flat, else a pager. */
import { type GenerationId, type LayerId, type MemoryBackend, WrennError } from "@wrenn/contract";
import { makeBlankMemory } from "../engines/blank-memory.ts";
import type { CgroupMembership } from "../engines/cgroups.ts";
import type { GuestMemory } from "../engines/engine.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import { pagerOf } from "../memory/pager.ts";
import type { Holdings, SandboxContext } from "./context.ts";
import type { MemorySource, SandboxFacts } from "./journal.ts";

/** Which way frozen memory comes back: `auto` maps flat images and serves all others. */
export const memoryChoices = ["auto", "file", "uffd"] as const;
export type MemoryChoice = (typeof memoryChoices)[number];

export interface MemoryRequest {
  readonly facts: SandboxFacts;
  /** Null for a boot. */
  readonly manifest: GenerationManifest | null;
  readonly uid: number;
  readonly cgroup: CgroupMembership;
}

export interface OpenMemory {
  /** For the journal. */
  readonly source: MemorySource;
  /** For the engine. */
  readonly guest: GuestMemory;
}

/** @throws WrennError `snapshot_damaged`, or of the pager's start */
export async function openMemory(
  context: SandboxContext,
  request: MemoryRequest,
  holdings: Holdings,
  signal: AbortSignal,
): Promise<OpenMemory> {
  const { facts, manifest } = request;
  const { files } = holdings;
  if (manifest === null) {
    await makeBlankMemory(files.blankMemory, facts.memoryMib);
    return mapped(null, null, files.blankMemory);
  }
  const flat = await flatImage(context, manifest);
  const [layer] = flat.memory.layers;
  if (flat.memory.flat && layer !== undefined && context.memoryChoice !== "uffd") {
    await context.generations.verifyOnce(flat);
    return mapped(layer, flat.id, context.layout.layer(layer).memory);
  }
  const generation = context.layout.generation(flat.id);
  const { identity } = await context.pager.start(
    {
      files,
      uid: request.uid,
      header: generation.header(flat.memory.header),
      workingSet: generation.workingSet,
      record: files.workingSet,
      cgroup: request.cgroup,
    },
    signal,
  );
  holdings.pager = identity;
  return {
    source: { backend: "uffd", mapped: null, pager: identity, parent: flat.id },
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

/** The same state, folded first where this host cannot serve pages, or is told not to. */
async function flatImage(context: SandboxContext, manifest: GenerationManifest): Promise<GenerationManifest> {
  if (manifest.memory.flat || usableBackends(context).includes("uffd")) return manifest;
  const { folds, generations } = context;
  folds.add(manifest.id, { flat: true });
  await folds.idle();
  return generations.read(manifest.id);
}

function mapped(layer: LayerId | null, parent: GenerationId | null, path: string): OpenMemory {
  return { source: { backend: "file", mapped: layer, pager: null, parent }, guest: { backend: "file", path } };
}
