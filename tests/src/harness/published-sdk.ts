/**
 * The SDK as a project has it that installed it: packed by npm, unpacked into a node_modules with nothing in it but what the packages
 * say they need. The registry's packages are linked, not downloaded.
 */
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { run } from "@wrenn/system";
import { z } from "zod";

const packages = ["contract", "sdk"] as const;

const manifestSchema = z.looseObject({ name: z.string(), dependencies: z.record(z.string(), z.string()).default({}) });
const packedSchema = z.tuple([z.object({ filename: z.string(), files: z.array(z.object({ path: z.string() })) })]);

export interface PublishedSdk {
  /** A project: a package.json of type module, and node_modules. */
  readonly project: string;
  /** What each package consists of. */
  readonly files: Readonly<Record<(typeof packages)[number], string[]>>;
  remove(): Promise<void>;
}

export async function publishSdk(): Promise<PublishedSdk> {
  const directory = await mkdtemp(path.join(tmpdir(), "wrenn-published-"));
  const checkout = path.join(directory, "checkout");
  const project = path.join(directory, "project");
  await copyCheckout(checkout);
  const files: Record<string, string[]> = {};
  for (const name of packages) {
    const { filename, paths } = await pack(path.join(checkout, "packages", name), directory);
    const installed = path.join(project, "node_modules/@wrenn", name);
    await mkdir(installed, { recursive: true });
    await run("tar", ["xzf", path.join(directory, filename), "--strip-components=1", "-C", installed]);
    await linkDependencies(installed, path.join(repositoryRoot, "packages", name), path.join(project, "node_modules"));
    files[name] = paths;
  }
  await writeFile(path.join(project, "package.json"), JSON.stringify({ name: "project", type: "module" }));
  const { contract = [], sdk = [] } = files;
  return { project, files: { contract, sdk }, remove: async () => rm(directory, { recursive: true, force: true }) };
}

/** Packing builds anew, which must not take away what other tests run. */
async function copyCheckout(checkout: string): Promise<void> {
  const built = /\/(node_modules|dist)$|\.tsbuildinfo$/;
  for (const name of packages) {
    const source = path.join(repositoryRoot, "packages", name);
    await cp(source, path.join(checkout, "packages", name), { recursive: true, filter: (file) => !built.test(file) });
  }
  for (const name of ["package.json", "tsconfig.base.json", "LICENSE", ".npmrc"]) {
    await cp(path.join(repositoryRoot, name), path.join(checkout, name));
  }
  await symlink(path.join(repositoryRoot, "node_modules"), path.join(checkout, "node_modules"));
}

async function pack(directory: string, destination: string): Promise<{ filename: string; paths: string[] }> {
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", destination], { cwd: directory });
  // What the package's own script says comes first.
  const [{ filename, files }] = packedSchema.parse(JSON.parse(stdout.slice(stdout.indexOf("[\n"))));
  return { filename, paths: files.map((file) => file.path) };
}

/** What a package depends on, and what that depends on, where `source` finds it. Packages of ours are unpacked, not linked. */
async function linkDependencies(installed: string, source: string, nodeModules: string): Promise<void> {
  const { dependencies } = manifestSchema.parse(
    JSON.parse(await readFile(path.join(installed, "package.json"), "utf8")),
  );
  for (const name of Object.keys(dependencies)) {
    if (name.startsWith("@wrenn/")) continue;
    const found = await findPackage(name, source);
    const link = path.join(nodeModules, name);
    await mkdir(path.dirname(link), { recursive: true });
    await symlink(found, link).catch(ignoreExisting);
  }
}

async function findPackage(name: string, from: string): Promise<string> {
  for (const directory of createRequire(path.join(from, "package.json")).resolve.paths(name) ?? []) {
    const candidate = path.join(directory, name);
    const manifest = await readFile(path.join(candidate, "package.json"), "utf8").catch(() => null);
    if (manifest !== null) return candidate;
  }
  throw new Error(`${name}, which ${from} depends on, is not installed`);
}

function ignoreExisting(error: unknown): void {
  if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
}
