/**
 * The guests' kernel: the distribution's own for virtual machines, with the few modules a guest loads. It is taken out of
 * its package and never installed on the host.
 */
import { readdir } from "node:fs/promises";
import path from "node:path";
import { makeDirectory, readJson, writeJsonDurably, type Layout } from "@wrenn/system";
import { contentName, freshScratch, publishDirectory, removeTree, type BuildOptions } from "./build.ts";
import type { Distribution } from "./distribution.ts";
import {
  indexModules,
  type KernelManifest,
  kernelManifestSchema,
  takeKernel,
  takeModules,
  unpackKernelPackage,
} from "./kernel-package.ts";
import { imagePaths, kernelPaths, scratchPrefix, type KernelPaths } from "./paths.ts";

/** Raised when what is made of the same package changes, so that machines make it again. */
const recipeVersion = 2;

/**
 * What a guest needs before its root filesystem is there, raw sockets, and what ends connections after a restore (`tcp_diag`);
 * everything they depend on comes along.
 */
export const guestModules = [
  "virtio_mmio",
  "virtio_blk",
  "virtio_net",
  "virtio_rng",
  "ext4",
  "af_packet",
  "tcp_diag",
] as const;

export interface Kernel extends KernelPaths, Readonly<KernelManifest> {
  /** Names the recipe, hence the directory. */
  readonly recipe: string;
}

export function kernelRecipe(distribution: Distribution): string {
  return contentName({
    recipeVersion,
    distribution: `${distribution.id} ${distribution.codename}`,
    package: distribution.kernelPackage,
    modules: guestModules,
  });
}

/** The kernel made by an earlier run, or null. */
export async function findKernel(layout: Layout, distribution: Distribution): Promise<Kernel | null> {
  const recipe = kernelRecipe(distribution);
  const paths = imagePaths(layout).kernel(recipe);
  const manifest = kernelManifestSchema.safeParse(await readJson(paths.manifest));
  return manifest.success ? { ...paths, recipe, ...manifest.data } : null;
}

/** Downloads the distribution's kernel and keeps its image and the guests' modules in the cache. Needs no root. */
export async function buildKernel(options: BuildOptions, distribution: Distribution): Promise<Kernel> {
  const paths = imagePaths(options.layout);
  const recipe = kernelRecipe(distribution);
  const scratch = paths.scratch(paths.kernels, "kernel");
  await freshScratch(scratch);
  try {
    const result = kernelPaths(path.join(scratch, "result"));
    await makeDirectory(result.modules);
    const tree = await unpackKernelPackage(options, distribution, scratch);
    const manifest = await takeKernel(tree, result.image);
    await takeModules(await indexModules(tree, manifest.kernelVersion), guestModules, result.modules);
    await writeJsonDurably(result.manifest, manifest, 0o644);
    await publishDirectory(result.directory, paths.kernel(recipe).directory);
    await removeOtherKernels(paths.kernels, recipe);
    return { ...paths.kernel(recipe), recipe, ...manifest };
  } finally {
    await removeTree(scratch);
  }
}

/** Kernels of older recipes: what VMs boot is a copy. */
async function removeOtherKernels(kernels: string, recipe: string): Promise<void> {
  for (const name of await readdir(kernels)) {
    if (name !== recipe && !name.startsWith(scratchPrefix)) await removeTree(path.join(kernels, name));
  }
}
