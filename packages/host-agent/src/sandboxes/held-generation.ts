/** A frozen state that garbage collection leaves alone until it is let go of, whatever else happens to it. */
import type { GenerationId } from "@wrenn/contract";
import type { Generations } from "../memory/generations.ts";
import { type GenerationManifest, layersOf } from "../memory/manifest.ts";

export interface HeldGeneration {
  readonly manifest: GenerationManifest;
  letGo(): void;
}

/** @throws WrennError `snapshot_damaged` */
export async function holdGeneration(generations: Generations, id: GenerationId): Promise<HeldGeneration> {
  const manifest = await generations.read(id);
  return { manifest, letGo: generations.pins.hold([id, ...layersOf(manifest)]) };
}
