/** The distribution's kernel for virtual machines, taken out of its package and never installed on the host. */
import { access, chmod, copyFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { isMissingFile, run, runUnchecked } from "@wrenn/system";
import { z } from "zod";
import { refreshingPackageLists } from "./apt-lists.ts";
import { toolOptions, type BuildOptions } from "./build.ts";
import type { Distribution } from "./distribution.ts";
import { unpackKernelImage } from "./kernel-image.ts";
import { moduleName, resolveModules } from "./kernel-modules.ts";

export const kernelManifestSchema = z.object({
  /** As `uname -r` says it in the guest. */
  kernelVersion: z.string().min(1),
  /** The usual name of what `image` is: the kernel itself, or the image that unpacks itself. */
  form: z.enum(["vmlinux", "vmlinuz"]),
});
export type KernelManifest = z.infer<typeof kernelManifestSchema>;

/** Downloads the kernel's packages and unpacks them below `scratch`; returns the tree. Needs no root. */
export async function unpackKernelPackage(
  options: Omit<BuildOptions, "layout">,
  distribution: Distribution,
  scratch: string,
): Promise<string> {
  const tree = path.join(scratch, "kernel-tree");
  const downloads = path.join(scratch, "kernel-packages");
  await mkdir(downloads);
  await mkdir(tree);
  await refreshingPackageLists(options, () => downloadKernel(options, distribution, downloads));
  for (const file of await readdir(downloads)) {
    options.onProgress?.(`unpacking ${file}`);
    await run("dpkg-deb", ["--extract", path.join(downloads, file), tree], toolOptions(options));
  }
  return tree;
}

async function downloadKernel(
  options: Omit<BuildOptions, "layout">,
  distribution: Distribution,
  downloads: string,
): Promise<void> {
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

/** Copies the kernel out of an unpacked package to `target`, unpacked where its form is known. */
export async function takeKernel(tree: string, target: string): Promise<KernelManifest> {
  const names = await readdir(path.join(tree, "boot"));
  const name = names.find((file) => file.startsWith("vmlinuz-"));
  if (name === undefined) throw new WrennError("setup_failed", { message: "The kernel's package holds no kernel." });
  const packed = path.join(tree, "boot", name);
  const unpacked = await unpackKernelImage(await readFile(packed), target);
  if (!unpacked) await copyFile(packed, target);
  await chmod(target, 0o644);
  return { kernelVersion: name.slice("vmlinuz-".length), form: unpacked ? "vmlinux" : "vmlinuz" };
}

/** Copies modules, with all they depend on, into the directory `target`, beside the file `order`: their names in loading order. */
export async function takeModules(directory: string, wanted: readonly string[], target: string): Promise<void> {
  const text = async (name: string): Promise<string> => {
    return readFile(path.join(directory, name), "utf8").catch((error: unknown) => {
      if (isMissingFile(error)) return "";
      throw error;
    });
  };
  const order = resolveModules(wanted, {
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

/** Where an unpacked package has its kernel's modules, with depmod's files. */
export async function indexModules(tree: string, kernelVersion: string): Promise<string> {
  const library = await firstThere([path.join(tree, "lib"), path.join(tree, "usr", "lib")], "modules");
  // depmod looks below lib/modules of the directory it is given, wherever the package has them.
  await run("depmod", ["-b", path.dirname(library), kernelVersion]);
  return path.join(library, "modules", kernelVersion);
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
