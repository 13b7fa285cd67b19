/** What the topmost of a sandbox's disks is laid over. */
import type { LayerId } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { Backing } from "../disks/qcow2-header.ts";
import { sealDiskLayer } from "../disks/qcow2.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import type { Disk } from "./journal.ts";

/** Layers of a disk, the topmost first, and the root filesystem below them. */
export interface DiskChain {
  readonly layers: readonly LayerId[];
  readonly rootfs: string;
}

export function diskBelow(layout: Layout, { layers, rootfs }: DiskChain): Backing {
  const [top] = layers;
  return top === undefined ? { path: rootfs, format: "raw" } : { path: layout.layer(top).disk, format: "qcow2" };
}

/** An empty disk over a frozen one. */
export function diskOver({ disk }: Pick<GenerationManifest, "disk">): Disk {
  return { overlay: "overlay", layers: disk.layers, rootfs: disk.rootfs, switchingTo: null };
}

/** Takes the topmost layer of a chain from the engine that wrote it. Can be done again, and before every use: a kill may have kept it from being done. */
export async function sealTop(layout: Layout, { layers, rootfs }: DiskChain): Promise<void> {
  const [top, ...below] = layers;
  if (top !== undefined) await sealDiskLayer(layout.layer(top), diskBelow(layout, { layers: below, rootfs }));
}
