/** A directory tree of the distribution's packages, as every root filesystem that is built here begins. */
import { readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { makeDirectory, run } from "@wrenn/system";
import { refreshingPackageLists } from "./apt-lists.ts";
import { readDistributionSources } from "./apt-sources.ts";
import { removeTree, toolOptions, type BuildOptions } from "./build.ts";
import type { Distribution } from "./distribution.ts";
import { imagePaths } from "./paths.ts";

/** Kept out at installation and for packages that users install later. Licences stay, as they must. */
export const dpkgOptions = [
  "path-exclude=/usr/share/doc/*",
  "path-include=/usr/share/doc/*/copyright",
  "path-exclude=/usr/share/groff/*",
  "path-exclude=/usr/share/info/*",
  "path-exclude=/usr/share/lintian/*",
  "path-exclude=/usr/share/locale/*",
  "path-exclude=/usr/share/man/*",
] as const;

/** Fills `tree` with the distribution's smallest system and these packages. Needs root. */
export async function bootstrapTree(
  options: BuildOptions,
  distribution: Distribution,
  packages: readonly string[],
  tree: string,
): Promise<void> {
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
      // How this machine reaches its mirror. Removed below: it can hold credentials and means nothing in an image.
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
  await removeTraces(tree);
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

/** What building leaves and no image needs. apt makes its lists anew at the first `apt-get update`. */
async function removeTraces(tree: string): Promise<void> {
  await emptyDirectory(path.join(tree, "var", "lib", "apt", "lists"));
  await emptyDirectory(path.join(tree, "var", "cache", "apt"));
  await emptyDirectory(path.join(tree, "var", "log"));
  await makeDirectory(path.join(tree, "var", "cache", "apt", "archives", "partial"));
  await makeDirectory(path.join(tree, "var", "log", "apt"));
}

async function emptyDirectory(directory: string): Promise<void> {
  for (const name of await readdir(directory)) await removeTree(path.join(directory, name));
}
