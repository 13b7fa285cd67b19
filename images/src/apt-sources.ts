/**
 * Where this machine's packages come from, as apt itself sees it: mirrors and proxies are the machine's choice, so no
 * host name is written here. Third-party sources are left out: an image holds the distribution's packages only.
 */
import { access } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { run } from "@wrenn/system";
import type { Distribution } from "./distribution.ts";

/**
 * The distribution's own sources, one `deb` line each.
 * @throws WrennError `setup_failed` when apt knows none, which is so before its first `apt-get update`.
 */
export async function readDistributionSources(distribution: Distribution): Promise<string[]> {
  // Effective configuration: sources.list, deb822 files and options alike, with what each archive says of itself.
  const { stdout } = await run("apt-get", ["indextargets", "Identifier: Packages"]);
  const keyring = await access(distribution.keyring).then(
    () => distribution.keyring,
    () => undefined,
  );
  const sources = selectSources(stdout, distribution, keyring);
  if (sources.length === 0) {
    throw new WrennError("setup_failed", {
      message: `apt knows no package source of ${distribution.prettyName} (${distribution.codename}).`,
      suggestion: "See that `apt-get update` succeeds on this machine, then run the command again.",
    });
  }
  return sources;
}

/** Picks the distribution's release, updates and security archives from the output of `apt-get indextargets`. */
export function selectSources(
  indexTargets: string,
  distribution: Pick<Distribution, "origin" | "codename">,
  keyring: string | undefined,
): string[] {
  const suites = new Set(["", "-updates", "-security"].map((suffix) => `${distribution.codename}${suffix}`));
  const componentsOf = new Map<string, Set<string>>();
  for (const target of indexTargets.split(/\n\n+/).map(parseStanza)) {
    const uri = target.get("Repo-URI");
    const release = target.get("Release");
    const component = target.get("Component");
    if (uri === undefined || release === undefined || component === undefined) continue;
    if (target.get("Origin") !== distribution.origin || target.get("Architecture") !== "amd64") continue;
    if (!suites.has(release)) continue;
    const archive = `${uri} ${release}`;
    componentsOf.set(archive, (componentsOf.get(archive) ?? new Set()).add(component));
  }
  const options = keyring === undefined ? "" : `[signed-by=${keyring}] `;
  return [...componentsOf].map(([archive, components]) => `deb ${options}${archive} ${[...components].join(" ")}`);
}

function parseStanza(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields.set(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return fields;
}
