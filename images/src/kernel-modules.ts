/** Which kernel modules must be loaded, and in which order, for a list of wanted ones. Reads what depmod(8) wrote. */

/** The text of depmod's files. */
export interface ModuleIndex {
  /** modules.dep: each module with all that must be loaded before it, the last named first. */
  readonly dep: string;
  /** modules.builtin: what the kernel already contains. */
  readonly builtin: string;
  /** modules.softdep: what a module asks for while it loads, without a symbol that would show it. */
  readonly softdep: string;
  /** modules.alias: other names of modules. */
  readonly alias: string;
}

/**
 * Paths of the modules, relative to the index, in loading order; those built in are left out.
 * @throws Error naming the first module that the kernel does not have.
 */
export function resolveModules(wanted: readonly string[], index: ModuleIndex): string[] {
  const dependencies = parseDependencies(index.dep);
  const pathOf = new Map([...dependencies.keys()].map((path) => [moduleName(path), path]));
  const builtin = new Set(lines(index.builtin).map(moduleName));
  const before = parseSoftDependencies(index.softdep);
  const order: string[] = [];
  const seen = new Set<string>();

  const add = (path: string): void => {
    if (seen.has(path)) return;
    seen.add(path);
    for (const dependency of (dependencies.get(path) ?? []).toReversed()) add(dependency);
    for (const name of before.get(moduleName(path)) ?? []) addSoft(name);
    order.push(path);
  };
  // Several modules may offer what is asked for softly (crc32c: one plain, one for a processor). The one whose name
  // says nothing of a processor loads everywhere.
  const addSoft = (name: string): void => {
    const candidates = [name, ...aliasesOf(name, index.alias)];
    if (candidates.some((candidate) => builtin.has(candidate))) return;
    const paths = candidates.flatMap((candidate) => pathOf.get(candidate) ?? []);
    const portable = paths.find((path) => !path.includes("/arch/")) ?? paths[0];
    if (portable !== undefined) add(portable);
  };

  for (const name of wanted.map(normalised)) {
    if (builtin.has(name)) continue;
    const path = pathOf.get(name);
    if (path === undefined) throw new Error(`the kernel has no module ${name}`);
    add(path);
  }
  return order;
}

/** `kernel/drivers/virtio/virtio-mmio.ko.xz` is the module `virtio_mmio`. */
export function moduleName(path: string): string {
  const file = path.slice(path.lastIndexOf("/") + 1);
  return normalised(file.replace(/\.ko(\.(xz|zst|gz))?$/, ""));
}

function normalised(name: string): string {
  return name.replaceAll("-", "_");
}

function parseDependencies(text: string): Map<string, string[]> {
  return new Map(
    lines(text).flatMap((line) => {
      const [path, rest] = line.split(":");
      return path === undefined ? [] : [[path, words(rest ?? "")]];
    }),
  );
}

/** `softdep ext4 pre: crc32c post: x`: only what comes before matters for loading. */
function parseSoftDependencies(text: string): Map<string, string[]> {
  const before = new Map<string, string[]>();
  for (const line of lines(text)) {
    const [keyword, name, ...rest] = words(line);
    if (keyword !== "softdep" || name === undefined) continue;
    const pre = rest.join(" ").match(/pre:([^:]*)(?: post:|$)/)?.[1] ?? "";
    before.set(normalised(name), [...(before.get(normalised(name)) ?? []), ...words(pre).map(normalised)]);
  }
  return before;
}

function aliasesOf(alias: string, text: string): string[] {
  return lines(text).flatMap((line) => {
    const [keyword, name, target] = words(line);
    return keyword === "alias" && target !== undefined && normalised(name ?? "") === alias ? [normalised(target)] : [];
  });
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}
