/**
 * The guests' kernel: the distribution's own for virtual machines, with the few modules a guest loads. It is taken out of
 * its package and never installed on the host.
 */
import { access, chmod, copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import {
  isMissingFile,
  makeDirectory,
  readJson,
  run,
  runUnchecked,
  writeJsonDurably,
  type Layout,
} from "@wrenn/system";
import { z } from "zod";
import { refreshingPackageLists } from "./apt-lists.ts";
import { contentName, freshScratch, publishDirectory, removeTree, toolOptions, type BuildOptions } from "./build.ts";
import type { Distribution } from "./distribution.ts";
import { unpackKernelImage } from "./kernel-image.ts";
import { moduleName, resolveModules } from "./kernel-modules.ts";
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

const kernelManifestSchema = z.object({
  /** As `uname -r` says it in the guest. */
  kernelVersion: z.string().min(1),
  /** The usual name of what `image` is: the kernel itself, or the image that unpacks itself. */
  form: z.enum(["vmlinux", "vmlinuz"]),
});
type KernelManifest = z.infer<typeof kernelManifestSchema>;

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
    const tree = path.join(scratch, "tree");
    const downloads = path.join(scratch, "packages");
    await mkdir(downloads);
    await mkdir(tree);
    await refreshingPackageLists(options, () => downloadKernel(options, distribution, downloads));
    for (const file of await readdir(downloads)) {
      options.onProgress?.(`unpacking ${file}`);
      await run("dpkg-deb", ["--extract", path.join(downloads, file), tree], toolOptions(options));
    }
    const result = kernelPaths(path.join(scratch, "result"));
    await makeDirectory(result.modules);
    const manifest = await takeKernel(tree, result);
    await takeModules(tree, manifest.kernelVersion, result.modules);
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

async function downloadKernel(options: BuildOptions, distribution: Distribution, downloads: string): Promise<void> {
  const image = await dependencyNamed(distribution.kernelPackage, /^linux-image-\d/);
  if (image === null) {
    throw new WrennError("setup_failed", {
      message: `apt offers no kernel for virtual machines: ${distribution.kernelPackage} depends on no linux-image.`,
      suggestion: "See that `apt-get update` succeeds on this machine, then run the command again.",
    });
  }
  // Ubuntu has the modules in a package of their own, Debian has them with the image.
  const modules = await dependencyNamed(image, /^linux-modules-\d/);
  const packages = modules === null ? [image] : [image, modules];
  // Downloaded as root: apt's own user for downloads cannot write to a private directory.
  await run("apt-get", ["-o", "APT::Sandbox::User=root", "download", ...packages], {
    ...toolOptions(options),
    cwd: downloads,
  });
}

async function dependencyNamed(name: string, pattern: RegExp): Promise<string | null> {
  const { stdout } = await runUnchecked("apt-cache", ["depends", "--important", name]);
  for (const line of stdout.split("\n")) {
    const dependency = /^\s*\|?(?:Pre)?Depends: (\S+)$/.exec(line)?.[1];
    if (dependency !== undefined && pattern.test(dependency)) return dependency;
  }
  return null;
}

async function takeKernel(tree: string, result: KernelPaths): Promise<KernelManifest> {
  const names = await readdir(path.join(tree, "boot"));
  const name = names.find((file) => file.startsWith("vmlinuz-"));
  if (name === undefined) throw new WrennError("setup_failed", { message: "The kernel's package holds no kernel." });
  const packed = path.join(tree, "boot", name);
  const unpacked = await unpackKernelImage(await readFile(packed), result.image);
  if (!unpacked) await copyFile(packed, result.image);
  await chmod(result.image, 0o644);
  return { kernelVersion: name.slice("vmlinuz-".length), form: unpacked ? "vmlinux" : "vmlinuz" };
}

async function takeModules(tree: string, kernelVersion: string, target: string): Promise<void> {
  const library = await firstThere([path.join(tree, "lib"), path.join(tree, "usr", "lib")], "modules");
  // depmod looks below lib/modules of the directory it is given, wherever the package has them.
  await run("depmod", ["-b", path.dirname(library), kernelVersion]);
  const directory = path.join(library, "modules", kernelVersion);
  const text = async (name: string): Promise<string> => {
    return readFile(path.join(directory, name), "utf8").catch((error: unknown) => {
      if (isMissingFile(error)) return "";
      throw error;
    });
  };
  const order = resolveModules(guestModules, {
    dep: await text("modules.dep"),
    builtin: await text("modules.builtin"),
    softdep: await text("modules.softdep"),
    alias: await text("modules.alias"),
  });
  for (const module of order) {
    await writeFile(path.join(target, `${moduleName(module)}.ko`), await readModule(path.join(directory, module)));
  }
  const files = order.map((module) => `${moduleName(module)}.ko\n`);
  await writeFile(path.join(target, "order"), files.join(""));
}

/** Modules go uncompressed into the initramfs: a guest has nothing to unpack them with. */
async function readModule(file: string): Promise<Buffer> {
  const unpacker = { ".xz": "xz", ".zst": "zstd", ".gz": "gzip" }[path.extname(file)];
  if (unpacker === undefined) return readFile(file);
  const unpacked = file.slice(0, -path.extname(file).length);
  await run(unpacker, ["--decompress", "--force", "--quiet", file]);
  return readFile(unpacked);
}

async function firstThere(parents: readonly string[], name: string): Promise<string> {
  for (const parent of parents) {
    const there = await access(path.join(parent, name)).then(
      () => true,
      () => false,
    );
    if (there) return parent;
  }
  throw new WrennError("setup_failed", { message: "The kernel's packages hold no modules." });
}
