/** Builds what is written in Rust and installs it: the guest agent, the pager, and the library that gives QEMU its memory. */
import { createHash } from "node:crypto";
import { access, chmod, copyFile, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { makeDirectory, readJson, writeJsonDurably, type Layout } from "@wrenn/system";
import { z } from "zod";
import { buildWithCargo, type CargoBuild } from "./cargo.ts";
import type { SetupStep, StepProgress } from "./step.ts";

interface NativeProgram {
  readonly build: CargoBuild;
  /** Files and folders of the repository that it is made of, besides {@link workspaceSources}. */
  readonly sources: readonly string[];
  /** Where it is installed. */
  readonly installed: string;
  readonly record: string;
}

/** What decides about every program of the workspace: versions of dependencies, flags. */
const workspaceSources = ["native/.cargo", "native/Cargo.lock", "native/Cargo.toml"];

/** Beside each program: what it was built from, and what it is. */
const recordSchema = z.object({ sources: z.string(), sha256: z.string() });

export function nativeProgramsStep(layout: Layout, repositoryRoot: string): SetupStep {
  const programs = nativePrograms(layout);
  return {
    name: "Building native programs",
    expectedSeconds: 120,
    disk: { path: path.join(repositoryRoot, "native"), bytes: 1_073_741_824 },
    needsRoot: true,
    isDone: async () => {
      for (const program of programs) {
        if (!(await isCurrent(program, repositoryRoot))) return false;
      }
      return true;
    },
    run: async (progress) => {
      for (const program of programs) {
        if (!(await isCurrent(program, repositoryRoot))) await buildProgram(program, repositoryRoot, progress);
      }
    },
  };
}

/** SHA-256 of the installed guest agent, or null when none is. */
export async function installedGuestAgent(layout: Layout): Promise<string | null> {
  return (await readRecord(layout.guestAgent, layout.guestAgentRecord))?.sha256 ?? null;
}

function nativePrograms(layout: Layout): NativeProgram[] {
  return [
    {
      build: { package: "guest-agent", target: "wrenn-guest", kind: "executable" },
      sources: ["native/guest-agent", "packages/contract/proto"],
      installed: layout.guestAgent,
      record: layout.guestAgentRecord,
    },
    {
      build: { package: "pager", target: "wrenn-pager", kind: "executable" },
      sources: ["native/memory-image", "native/pager", "native/userfault"],
      installed: layout.pager,
      record: layout.pagerRecord,
    },
    {
      build: { package: "memory-preload", target: "wrenn_memory", kind: "shared-object" },
      sources: ["native/memory-preload", "native/userfault"],
      installed: layout.memoryLibrary,
      record: layout.memoryLibraryRecord,
    },
  ];
}

async function isCurrent(program: NativeProgram, repositoryRoot: string): Promise<boolean> {
  const record = await readRecord(program.installed, program.record);
  return record !== null && record.sources === (await hashSources(program, repositoryRoot));
}

async function readRecord(installed: string, file: string): Promise<z.infer<typeof recordSchema> | null> {
  const record = recordSchema.safeParse(await readJson(file));
  if (!record.success) return null;
  return access(installed).then(
    () => record.data,
    () => null,
  );
}

async function buildProgram(program: NativeProgram, repositoryRoot: string, progress: StepProgress): Promise<void> {
  // Taken before: sources that change during the build make it stale.
  const sources = await hashSources(program, repositoryRoot);
  const built = await buildWithCargo(path.join(repositoryRoot, "native"), program.build, progress);
  await install(built, program.installed);
  const sha256 = createHash("sha256")
    .update(await readFile(program.installed))
    .digest("hex");
  await writeJsonDurably(program.record, { sources, sha256 }, 0o644);
}

/** Copies beside its place and renames, so that there is never half a program. */
async function install(built: string, installed: string): Promise<void> {
  const temporary = `${installed}.tmp`;
  await makeDirectory(path.dirname(installed));
  await rm(temporary, { force: true });
  await copyFile(built, temporary);
  await chmod(temporary, 0o755);
  const handle = await open(temporary, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, installed);
}

async function hashSources(program: NativeProgram, repositoryRoot: string): Promise<string> {
  const hash = createHash("sha256");
  for (const source of [...workspaceSources, ...program.sources]) {
    for (const file of await sourceFiles(path.join(repositoryRoot, source))) {
      hash.update(`${path.relative(repositoryRoot, file)}\0`);
      hash.update(await readFile(file));
      hash.update("\0");
    }
  }
  return hash.digest("hex");
}

/** The file itself, or all files of the folder. */
async function sourceFiles(source: string): Promise<string[]> {
  if (!(await stat(source)).isDirectory()) return [source];
  const entries = await readdir(source);
  const files: string[] = [];
  for (const entry of entries.toSorted()) files.push(...(await sourceFiles(path.join(source, entry))));
  return files;
}
