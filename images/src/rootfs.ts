/**
 * The root filesystem of the built-in template `minimal`: the distribution's smallest system with a shell, Python, git and
 * curl, as a sparse ext4 file. It knows nothing of Wrenn.
 */
import { access, chmod, open, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { minimalTemplateId, platformTeamId, sandboxLimits, baseTemplateSchema } from "@wrenn/contract";
import {
  makeDirectory,
  readJson,
  run,
  syncDirectory,
  writeJsonDurably,
  type Layout,
  type TemplateLayout,
} from "@wrenn/system";
import { bootstrapTree, dpkgOptions } from "./bootstrap-tree.ts";
import { contentName, freshScratch, removeTree, toolOptions, type BuildOptions } from "./build.ts";
import type { Distribution } from "./distribution.ts";
import { imagePaths } from "./paths.ts";
import { removeUnusedRootfs } from "./rootfs-prune.ts";

/** Raised when the same recipe gives another file system, so that machines make it again. */
const recipeVersion = 1;

const packages = [
  "attr",
  "bash",
  "ca-certificates",
  "coreutils",
  "curl",
  "git",
  "iproute2",
  // Resolves the machine's own name, whatever it is set to: sudo looks it up at every call.
  "libnss-myhostname",
  "ncurses-bin",
  "procps",
  "python3",
  "sudo",
] as const;

const diskMib = sandboxLimits.diskMib.min;

/**
 * 4 KiB blocks as the guest's pages are; no blocks reserved for root, who has no more rights than the user here; a
 * journal of 32 MiB instead of 128, because each sandbox's overlay grows by what the journal wraps through. Inode tables
 * and journal are zeroed now, or each guest would do it in the background; a copy then turns the zeros into holes.
 */
const ext4Features = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
const ext4Options = ["-t", "ext4", "-b", "4096", "-m", "0", "-J", "size=32", "-E", ext4Features];

const user = { name: "user", id: "1000" } as const;

const files: readonly { path: string; content: string; mode: number }[] = [
  { path: "etc/hostname", content: "sandbox\n", mode: 0o644 },
  { path: "etc/hosts", content: "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n", mode: 0o644 },
  { path: "etc/default/locale", content: "LANG=C.UTF-8\n", mode: 0o644 },
  // Filled by whoever configures the guest: what the building host resolves with is of no use in a sandbox.
  { path: "etc/resolv.conf", content: "", mode: 0o644 },
  // Empty, it is for the first process to fill: two sandboxes must not share one.
  { path: "etc/machine-id", content: "", mode: 0o444 },
  { path: `etc/sudoers.d/${user.name}`, content: `${user.name} ALL=(ALL:ALL) NOPASSWD: ALL\n`, mode: 0o440 },
];

export interface Rootfs {
  readonly file: string;
  /** What the file takes on disk; its apparent size is `diskMib`. */
  readonly bytesUsed: number;
  readonly diskMib: number;
}

/** Whether the template's manifest names the root filesystem of the current recipe, and it is there. */
export async function rootfsIsCurrent(layout: Layout, distribution: Distribution): Promise<boolean> {
  const template = minimalTemplate(layout);
  const manifest = baseTemplateSchema.safeParse(await readJson(template.manifest));
  if (!manifest.success || manifest.data.rootfs !== rootfsName(distribution)) return false;
  return access(template.rootfs(manifest.data.rootfs)).then(
    () => true,
    () => false,
  );
}

/** Makes the root filesystem and publishes it as the template `minimal`. Needs root. */
export async function buildRootfs(options: BuildOptions, distribution: Distribution): Promise<Rootfs> {
  const template = minimalTemplate(options.layout);
  const name = rootfsName(distribution);
  const scratch = imagePaths(options.layout).scratch(template.directory, "rootfs");
  await freshScratch(scratch);
  try {
    const tree = path.join(scratch, "tree");
    await bootstrapTree(options, distribution, packages, tree);
    await configureTree(tree);
    const raw = path.join(scratch, "raw");
    options.onProgress?.("making the file system");
    await run("mke2fs", ["-q", ...ext4Options, "-d", tree, raw, `${diskMib}M`], toolOptions(options));
    const image = path.join(scratch, name);
    await run("cp", ["--sparse=always", raw, image], toolOptions(options));
    await chmod(image, 0o644);
    await syncFile(image);
    await rename(image, template.rootfs(name));
    await syncDirectory(template.directory);
  } finally {
    await removeTree(scratch);
  }
  await writeJsonDurably(template.manifest, { rootfs: name, diskMib }, 0o644);
  await removeUnusedRootfs(options.layout, template);
  const { blocks } = await stat(template.rootfs(name));
  return { file: template.rootfs(name), bytesUsed: blocks * 512, diskMib };
}

function minimalTemplate(layout: Layout): TemplateLayout {
  return layout.template(platformTeamId, minimalTemplateId);
}

function rootfsName(distribution: Distribution): string {
  const recipe = {
    recipeVersion,
    distribution: `${distribution.id} ${distribution.codename}`,
    packages,
    dpkgOptions,
    diskMib,
    ext4Options,
    user,
    files,
  };
  return `rootfs-${contentName(recipe)}.ext4`;
}

async function configureTree(tree: string): Promise<void> {
  await run("chroot", [tree, "useradd", "--create-home", "--uid", user.id, "--shell", "/bin/bash", user.name]);
  for (const file of files) {
    const target = path.join(tree, file.path);
    await rm(target, { force: true });
    await makeDirectory(path.dirname(target));
    await writeFile(target, file.content);
    await chmod(target, file.mode);
  }
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
