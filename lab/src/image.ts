/**
 * What the lab's VM boots: the distribution's kernel with all its modules, an initramfs that finds the disks, and a root filesystem with
 * what the host agent and its tests run. Made of packages, kept in the cache, made anew when what it is made of changes.
 */
import { chmod, copyFile, cp, mkdir, readdir, readFile, realpath, stat, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import type { SetupStep } from "@wrenn/cli";
import {
  type BuildOptions,
  bootstrapTree,
  contentName,
  type CpioEntry,
  detectDistribution,
  freshScratch,
  indexModules,
  publishDirectory,
  removeTree,
  takeKernel,
  takeModules,
  toolOptions,
  unpackKernelPackage,
  writeCpio,
} from "@wrenn/images";
import { hasErrno, isMissingFile, type Layout, readJson, run, runUnchecked } from "@wrenn/system";
import { guestPrograms, labDirectory, labImage, type LabImage } from "./paths.ts";

/** Raised when the same inputs give another image, so that machines make it again. */
const recipeVersion = 1;

/** What the host agent needs of a machine, what tests of it need besides, and what the lab itself runs on. */
const packages = [
  "busybox-static",
  "ca-certificates",
  "curl",
  "dmsetup",
  "e2fsprogs",
  "iproute2",
  "iputils-ping",
  "kmod",
  // The host's Node needs it.
  "libstdc++6",
  "mount",
  "nftables",
  "procps",
  "psmisc",
  "python3",
  "qemu-system-x86",
  "qemu-utils",
  "strace",
  "util-linux",
  "xfsprogs",
] as const;

/** What must be there before the root filesystem is, and the channel to the host. */
const initramfsModules = ["virtio_mmio", "virtio_blk", "virtio_console", "virtio_rng", "ext4"] as const;

/** Of every image here: ext4 without a journal, for nobody needs it again once its VM has ended. */
export const fileSystemArguments = ["-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^has_journal"] as const;

/** Apparent size of the root filesystem: room for whatever a command installs or writes there. */
const rootSize = "8G";

/** Days after which an image that nobody has used is removed. */
const keptDays = 2;

/** The step of set-up that makes the image. */
export function labImageStep(layout: Layout): SetupStep {
  return {
    name: "Building the lab's image",
    expectedSeconds: 90,
    // Packages, the tree they are installed in, and the file system made of it.
    disk: { path: layout.root, bytes: 3_000 * 1_048_576 },
    needsRoot: true,
    isDone: async () => (await findLabImage(layout)) !== null,
    run: async ({ say, signal }) => {
      await buildLabImage({ layout, onProgress: say, signal });
    },
  };
}

/** The image of the present recipe, or null when it has not been made. */
export async function findLabImage(layout: Layout): Promise<LabImage | null> {
  const image = labImage(path.join(labDirectory(layout), await recipeName()));
  if ((await readJson(image.manifest)) === null) return null;
  const now = new Date();
  await utimes(image.manifest, now, now);
  return image;
}

async function buildLabImage(options: BuildOptions): Promise<void> {
  const { layout, onProgress } = options;
  const distribution = await detectDistribution();
  const name = await recipeName();
  const scratch = path.join(labDirectory(layout), `.building-image-${process.pid}`);
  await freshScratch(scratch);
  try {
    const result = labImage(path.join(scratch, "result"));
    await mkdir(result.directory);
    const tree = path.join(scratch, "tree");
    await bootstrapTree(options, distribution, packages, tree);
    await addNode(tree);
    await mkdir(path.join(tree, "lab"));
    onProgress?.("taking the kernel from its package");
    const kernelTree = await unpackKernelPackage(options, distribution, scratch);
    const { kernelVersion } = await takeKernel(kernelTree, result.kernel);
    const modules = await indexModules(kernelTree, kernelVersion);
    await cp(modules, path.join(tree, "usr/lib/modules", kernelVersion), { recursive: true });
    const early = path.join(scratch, "early-modules");
    await mkdir(early);
    await takeModules(modules, initramfsModules, early);
    await writeFile(result.initramfs, await initramfs(tree, early));
    onProgress?.("making the file system");
    await run("mke2fs", [...fileSystemArguments, "-d", tree, result.root, rootSize], toolOptions(options));
    await writeFile(result.manifest, JSON.stringify({ kernelVersion, packages, node: process.version }));
    await publishDirectory(result.directory, path.join(labDirectory(layout), name));
    await removeUnused(labDirectory(layout));
  } finally {
    await removeTree(scratch);
  }
}

async function recipeName(): Promise<string> {
  const { id, codename, kernelPackage } = await detectDistribution();
  const init = await readFile(path.join(guestPrograms, "init"), "utf8");
  const node = [process.version, await realpath(process.execPath)];
  return contentName({ recipeVersion, id, codename, kernelPackage, packages, initramfsModules, rootSize, init, node });
}

/** The host's own: the image is of the same distribution, so it finds the libraries that it was linked with. */
async function addNode(tree: string): Promise<void> {
  const target = path.join(tree, "usr/bin/node");
  await copyFile(process.execPath, target);
  await chmod(target, 0o755);
  const { exitCode, stderr } = await runUnchecked("chroot", [tree, "node", "--version"]);
  if (exitCode === 0) return;
  throw new WrennError("setup_failed", {
    message: `This machine's Node (${process.execPath}) does not run in the lab's image: ${stderr.trim()}`,
    suggestion: "Use a Node.js that carries its own libraries, such as the builds of nodejs.org.",
  });
}

async function initramfs(tree: string, modules: string): Promise<Buffer> {
  const file = async (name: string, source: string, mode: number): Promise<CpioEntry> => {
    return { kind: "file", name, mode, content: await readFile(source) };
  };
  const entries: CpioEntry[] = [
    { kind: "directory", name: "bin", mode: 0o755 },
    { kind: "directory", name: "dev", mode: 0o755 },
    { kind: "character-device", name: "dev/console", mode: 0o600, major: 5, minor: 1 },
    await file("bin/busybox", path.join(tree, "usr/bin/busybox"), 0o755),
    await file("init", path.join(guestPrograms, "init"), 0o755),
    { kind: "directory", name: "modules", mode: 0o755 },
  ];
  for (const name of (await readdir(modules)).toSorted()) {
    entries.push(await file(`modules/${name}`, path.join(modules, name), 0o644));
  }
  return writeCpio(entries);
}

/** Images and shared disks that nobody has used for long. A VM that runs keeps what it has open. */
export async function removeUnused(directory: string): Promise<void> {
  const oldest = Date.now() - keptDays * 86_400_000;
  for (const name of await readdir(directory)) {
    const entry = path.join(directory, name);
    const used = await lastUse(entry);
    if (used !== null && used < oldest) await removeTree(entry);
  }
}

async function lastUse(entry: string): Promise<number | null> {
  for (const file of [labImage(entry).manifest, entry]) {
    try {
      return (await stat(file)).mtimeMs;
    } catch (error) {
      if (!isMissingFile(error) && !hasErrno(error, "ENOTDIR")) throw error;
    }
  }
  return null;
}
