/** Builds the guest agent from its Rust sources and installs it where the initramfs takes it from. */
import { createHash } from "node:crypto";
import { access, chmod, copyFile, mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { readJson, run, writeJsonDurably, type Layout } from "@wrenn/system";
import { z } from "zod";
import { findOnPath } from "./programs.ts";
import type { SetupStep, StepProgress } from "./step.ts";

const binaryName = "wrenn-guest";
const buildTimeoutMs = 1_800_000;

/** Beside the binary: what it was built from, and what it is. */
const recordSchema = z.object({ sources: z.string(), sha256: z.string() });

export function guestAgentStep(layout: Layout, repositoryRoot: string): SetupStep {
  return {
    name: "Building the guest agent",
    expectedSeconds: 90,
    disk: { path: path.join(repositoryRoot, "native"), bytes: 1_073_741_824 },
    needsRoot: true,
    isDone: async () => {
      const record = await readRecord(layout);
      return record !== null && record.sources === (await hashSources(repositoryRoot));
    },
    run: (progress) => buildGuestAgent(layout, repositoryRoot, progress),
  };
}

/** SHA-256 of the installed guest agent, or null when none is. */
export async function installedGuestAgent(layout: Layout): Promise<string | null> {
  return (await readRecord(layout))?.sha256 ?? null;
}

async function readRecord(layout: Layout): Promise<z.infer<typeof recordSchema> | null> {
  const record = recordSchema.safeParse(await readJson(layout.guestAgentRecord));
  if (!record.success) return null;
  return access(layout.guestAgent).then(
    () => record.data,
    () => null,
  );
}

async function buildGuestAgent(layout: Layout, repositoryRoot: string, progress: StepProgress): Promise<void> {
  const native = path.join(repositoryRoot, "native");
  const cargo = await findCargo(native);
  // Taken before: sources that change during the build make it stale.
  const sources = await hashSources(repositoryRoot);
  const { stdout } = await run(
    cargo,
    ["build", "--release", "--locked", "--color=never", "--message-format=json-render-diagnostics"],
    {
      cwd: native,
      timeoutMs: buildTimeoutMs,
      signal: progress.signal,
      // Standard output is messages for programs, standard error what people read.
      onLine: (line) => {
        if (!line.startsWith("{")) progress.say(line);
      },
    },
  );
  const built = findExecutable(stdout);
  if (built === null) {
    throw new WrennError("setup_failed", { message: `cargo build succeeded, but named no executable ${binaryName}.` });
  }
  await install(built, layout.guestAgent);
  const sha256 = createHash("sha256")
    .update(await readFile(layout.guestAgent))
    .digest("hex");
  await writeJsonDurably(layout.guestAgentRecord, { sources, sha256 }, 0o644);
}

/** Copies beside its place and renames, so that there is never half a binary. */
async function install(built: string, binary: string): Promise<void> {
  const temporary = `${binary}.tmp`;
  await mkdir(path.dirname(binary), { recursive: true });
  await rm(temporary, { force: true });
  await copyFile(built, temporary);
  await chmod(temporary, 0o755);
  const handle = await open(temporary, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, binary);
}

const artifactSchema = z.object({
  reason: z.literal("compiler-artifact"),
  target: z.object({ name: z.literal(binaryName) }),
  executable: z.string(),
});

/** Where cargo says it put the binary: the folder depends on its configuration and environment. */
export function findExecutable(messages: string): string | null {
  for (const line of messages.split("\n")) {
    if (!line.startsWith("{")) continue;
    const artifact = artifactSchema.safeParse(JSON.parse(line));
    if (artifact.success) return artifact.data.executable;
  }
  return null;
}

/**
 * @throws WrennError `dependency_missing` when there is no cargo, or it is older than the workspace's `rust-version`
 */
async function findCargo(native: string): Promise<string> {
  const manifest = await readFile(path.join(native, "Cargo.toml"), "utf8");
  const needed = /^rust-version = "([\d.]+)"$/m.exec(manifest)?.[1] ?? "";
  // rustup installs it here, and `sudo` drops it from PATH.
  const cargo = await findOnPath("cargo", [
    path.join(process.env["CARGO_HOME"] ?? path.join(homedir(), ".cargo"), "bin"),
  ]);
  if (cargo === null) {
    throw new WrennError("dependency_missing", {
      message: `cargo, which builds the guest agent, is not installed for ${process.env["USER"] ?? "this user"}.`,
      suggestion:
        `Install Rust ${needed} or newer with rustup (https://rustup.rs) as the user who runs this command, root: ` +
        "no package of Debian 12 is new enough. Then run the command again.",
      details: { program: "cargo", needed },
    });
  }
  const { stdout } = await run(cargo, ["--version"], { cwd: native });
  const version = /^cargo ([\d.]+)/.exec(stdout)?.[1] ?? "";
  if (isOlder(version, needed)) {
    throw new WrennError("dependency_missing", {
      message: `${cargo} is version ${version}; building the guest agent needs Rust ${needed} or newer.`,
      suggestion: "Update it: rustup update stable. Then run the command again.",
      details: { program: "cargo", version, needed },
    });
  }
  return cargo;
}

/** Whether a version of dotted numbers comes before another. */
export function isOlder(version: string, needed: string): boolean {
  const parts = version.split(".").map(Number);
  for (const [index, number] of needed.split(".").map(Number).entries()) {
    const difference = (parts[index] ?? 0) - number;
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/** Everything the binary is made of: the Rust workspace and the protocol files its build generates code from. */
async function hashSources(repositoryRoot: string): Promise<string> {
  const hash = createHash("sha256");
  for (const folder of ["native", "packages/contract/proto"]) {
    for (const file of await sourceFiles(path.join(repositoryRoot, folder))) {
      hash.update(`${path.relative(repositoryRoot, file)}\0`);
      hash.update(await readFile(file));
      hash.update("\0");
    }
  }
  return hash.digest("hex");
}

async function sourceFiles(directory: string): Promise<string[]> {
  const files: string[] = [];
  const entries = await readdir(directory, { withFileTypes: true });
  for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.join(directory, entry.name);
    if (entry.isDirectory() && entry.name !== "target") files.push(...(await sourceFiles(file)));
    else if (entry.isFile()) files.push(file);
  }
  return files;
}
