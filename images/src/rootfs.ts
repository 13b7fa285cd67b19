/**
 * The root filesystem of the built-in template `minimal`: the distribution's smallest system with a shell, Python, git and
 * curl, as a sparse ext4 file. It knows nothing of Wrenn.
 */
import { access, chmod, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
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
import { refreshingPackageLists } from "./apt-lists.ts";
import { readDistributionSources } from "./apt-sources.ts";
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

/** Kept out at installation and for packages that users install later. Licences stay, as they must. */
const dpkgOptions = [
  "path-exclude=/usr/share/doc/*",
  "path-include=/usr/share/doc/*/copyright",
  "path-exclude=/usr/share/groff/*",
  "path-exclude=/usr/share/info/*",
  "path-exclude=/usr/share/lintian/*",
  "path-exclude=/usr/share/locale/*",
  "path-exclude=/usr/share/man/*",
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
    await bootstrapTree(options, distribution, tree);
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

async function bootstrapTree(options: BuildOptions, distribution: Distribution, tree: string): Promise<void> {
  const sources = await refreshingPackageLists(options, () => readDistributionSources(distribution));
  const cache = imagePaths(options.layout).packages;
  await makeDirectory(cache);
  const hostConfiguration = path.join(path.dirname(tree), "apt.conf");
  await writeFile(hostConfiguration, await hostAcquireConfiguration(), { mode: 0o600 });
  await run(
    "setpriv",
    [
      // Ends with this process, even if that is killed; mmdebstrap then ends what it has started.
      "--pdeathsig=TERM",
      "mmdebstrap",
      "--variant=minbase",
      `--include=${packages.join(",")}`,
      ...dpkgOptions.map((option) => `--dpkgopt=${option}`),
      // Nothing here outlives a crash, so no file is flushed one by one; the finished image is flushed once.
      `--setup-hook=mkdir -p "$1/etc/dpkg/dpkg.cfg.d" && echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/00building"`,
      // How this machine reaches its mirror. Removed below: it can hold credentials and means nothing in a sandbox.
      `--setup-hook=install -D -m 600 "$WRENN_APT_CONF" "$1/etc/apt/apt.conf.d/00building"`,
      // Packages downloaded by an earlier run are not downloaded again.
      `--setup-hook=mkdir -p "$1/var/cache/apt/archives" && cp -a "$WRENN_PACKAGES/." "$1/var/cache/apt/archives/"`,
      "--skip=download/empty,essential/unlink",
      `--customize-hook=find "$1/var/cache/apt/archives" -name '*.deb' -exec mv -t "$WRENN_PACKAGES" {} +`,
      `--customize-hook=rm -f "$1/etc/dpkg/dpkg.cfg.d/00building" "$1/etc/apt/apt.conf.d/00building"`,
      "--format=directory",
      distribution.codename,
      tree,
      ...sources,
    ],
    {
      ...toolOptions(options),
      env: {
        ...process.env,
        LC_ALL: "C.UTF-8",
        WRENN_PACKAGES: cache,
        WRENN_APT_CONF: hostConfiguration,
      },
    },
  );
}

/** How the host's apt fetches: proxies, certificates and retries, as apt itself sees them. */
async function hostAcquireConfiguration(): Promise<string> {
  const { stdout } = await run("apt-config", ["dump"]);
  return selectAcquireOptions(stdout);
}

/** The options of `apt-config dump` that say how to reach a mirror, and nothing that has to do with this host's files. */
export function selectAcquireOptions(dump: string): string {
  const wanted = /^Acquire::(https?|ftp|Retries|ForceIPv[46])\b\S* "[^"]*";$/;
  return dump
    .split("\n")
    .filter((line) => wanted.test(line) && !line.endsWith(' "";'))
    .map((line) => `${line}\n`)
    .join("");
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
  // What building leaves and no sandbox needs. apt makes its lists anew at the first `apt-get update`.
  await emptyDirectory(path.join(tree, "var", "lib", "apt", "lists"));
  await emptyDirectory(path.join(tree, "var", "cache", "apt"));
  await emptyDirectory(path.join(tree, "var", "log"));
  await makeDirectory(path.join(tree, "var", "cache", "apt", "archives", "partial"));
  await makeDirectory(path.join(tree, "var", "log", "apt"));
}

async function emptyDirectory(directory: string): Promise<void> {
  for (const name of await readdir(directory)) await removeTree(path.join(directory, name));
}

async function syncFile(file: string): Promise<void> {
  const handle = await open(file, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
