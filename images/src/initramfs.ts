/** What VMs boot: the kernel and an initramfs that holds the guest agent, published as a pair under `boot/`. */
import { createHash } from "node:crypto";
import { access, chmod, copyFile, readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { bootManifestSchema, type BootManifest } from "@wrenn/contract";
import { readJson, writeJsonDurably, type Layout } from "@wrenn/system";
import { contentName, freshScratch, publishDirectory, removeTree, type BuildOptions } from "./build.ts";
import { writeCpio, type CpioEntry } from "./cpio.ts";
import type { Kernel } from "./kernel.ts";
import { imagePaths, scratchPrefix } from "./paths.ts";

/** Raised when the same kernel and agent give another initramfs. */
const recipeVersion = 1;

const initramfsName = "initramfs.cpio";

/** Whether `boot/current.json` names files made of this kernel and this guest agent, and they are there. */
export async function bootFilesAreCurrent(
  layout: Layout,
  kernel: Pick<Kernel, "recipe" | "kernelVersion" | "form">,
  guestAgentSha256: string,
): Promise<boolean> {
  const manifest = await readBootManifest(layout);
  const hash = bootName(kernel, guestAgentSha256);
  if (manifest?.kernel !== imagePaths(layout).bootFile(hash, kernel.form)) return false;
  const files = [manifest.kernel, manifest.initramfs].map((file) => path.join(layout.boot, file));
  return Promise.all(files.map((file) => access(file))).then(
    () => true,
    () => false,
  );
}

/** What new VMs boot, or null when nothing has been published, or something that cannot be read. */
export async function readBootManifest(layout: Layout): Promise<BootManifest | null> {
  const manifest = bootManifestSchema.safeParse(await readJson(layout.bootManifest));
  return manifest.success ? manifest.data : null;
}

/**
 * Builds the initramfs and publishes it with its kernel. The pair it replaces stays for one more time, for a host agent
 * that has read the old manifest and is about to start a VM; VMs that run need neither.
 */
export async function buildBootFiles(
  options: BuildOptions,
  kernel: Kernel,
  guestAgentFile: string,
): Promise<BootManifest> {
  const { layout } = options;
  const paths = imagePaths(layout);
  const guestAgent = await readFile(guestAgentFile);
  const guestAgentSha256 = sha256(guestAgent);
  const hash = bootName(kernel, guestAgentSha256);
  const scratch = paths.scratch(layout.boot, "boot");
  await freshScratch(scratch);
  try {
    await copyFile(kernel.image, path.join(scratch, kernel.form));
    await writeFile(path.join(scratch, initramfsName), await initramfs(guestAgent, kernel), { mode: 0o644 });
    // The engine runs as a user of its own.
    await chmod(scratch, 0o755);
    await publishDirectory(scratch, paths.bootDirectory(hash));
  } finally {
    await removeTree(scratch);
  }
  const previous = await readBootManifest(layout);
  const manifest: BootManifest = {
    kernel: paths.bootFile(hash, kernel.form),
    initramfs: paths.bootFile(hash, initramfsName),
    kernelVersion: kernel.kernelVersion,
    guestAgent: guestAgentSha256,
  };
  await writeJsonDurably(layout.bootManifest, manifest, 0o644);
  await removeOtherBootFiles(layout, [manifest, ...(previous === null ? [] : [previous])]);
  return manifest;
}

/** Removes every pair under `boot/` that none of these manifests names. */
export async function removeOtherBootFiles(layout: Layout, kept: readonly BootManifest[]): Promise<void> {
  const names = new Set(kept.map((manifest) => path.dirname(manifest.kernel)));
  for (const entry of await readdir(layout.boot, { withFileTypes: true })) {
    if (!entry.isDirectory() || names.has(entry.name) || entry.name.startsWith(scratchPrefix)) continue;
    await removeTree(path.join(layout.boot, entry.name));
  }
}

/**
 * The archive is not compressed: unpacking costs an emulated guest far more than reading a few MiB through the page cache
 * costs the host.
 */
async function initramfs(guestAgent: Buffer, kernel: Kernel): Promise<Buffer> {
  const entries: CpioEntry[] = [
    // The kernel opens it for its first process before anything is mounted.
    { kind: "directory", name: "dev", mode: 0o755 },
    { kind: "character-device", name: "dev/console", mode: 0o600, major: 5, minor: 1 },
    { kind: "file", name: "init", mode: 0o755, content: guestAgent },
    { kind: "directory", name: "modules", mode: 0o755 },
  ];
  for (const name of (await readdir(kernel.modules)).toSorted()) {
    const content = await readFile(path.join(kernel.modules, name));
    entries.push({ kind: "file", name: `modules/${name}`, mode: 0o644, content });
  }
  return writeCpio(entries);
}

function bootName(kernel: Pick<Kernel, "recipe" | "kernelVersion">, guestAgentSha256: string): string {
  return contentName({ recipeVersion, recipe: kernel.recipe, version: kernel.kernelVersion, guestAgentSha256 });
}

function sha256(content: Buffer): string {
  return createHash("sha256").update(content).digest("hex");
}
