/** Out of a sandbox to here. Nothing that a sandbox says is trusted further than the place that the user has named. */
import { createWriteStream } from "node:fs";
import { chmod, mkdir, realpath, rename, rm, stat, utimes } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { WrennError } from "@wrenn/contract";
import type { FileEntry } from "@wrenn/sdk";
import { hasErrno } from "@wrenn/system";
import { mergeDirectory } from "./merge.ts";
import type { Meter } from "./meter.ts";
import { type SandboxSide, stageName } from "./sandbox-side.ts";
import { unpack } from "./tar.ts";
import { chooseTarget, endsAsDirectory, type Found, meansContents, type Target } from "./target.ts";

/** Resolves with the path it has here. */
export async function downloadPath(
  from: SandboxSide,
  given: string,
  destination: string,
  meter: Meter,
): Promise<string> {
  const entry = await existing(from, given);
  const isDirectory = entry.type === "directory";
  const source = { isDirectory, name: nameOf(given, entry), contentsOnly: meansContents(given) };
  const target = await chooseTarget(source, destination, look);
  if (isDirectory) await downloadDirectory(from, given, entry, target, meter);
  else await downloadFile(from, given, entry, target, meter);
  return target.path;
}

/** Its bytes, to whoever takes them one after the other. */
export async function downloadTo(
  from: SandboxSide,
  given: string,
  take: (bytes: Uint8Array) => Promise<void>,
  meter: Meter,
): Promise<void> {
  const entry = await existing(from, given);
  if (entry.type === "directory") {
    throw new WrennError("wrong_file_type", {
      message: `${given} is a directory, and standard output takes a file.`,
      suggestion: "Copy it to a path, or make an archive of it: wrenn exec SANDBOX -- tar c DIRECTORY.",
    });
  }
  meter.totalBytes = sizeOf(entry);
  for await (const piece of meter.count(await from.files.readStream(given, from.options))) await take(piece);
}

async function existing(from: SandboxSide, given: string): Promise<FileEntry> {
  const entry = await from.stat(given);
  if (entry === null) throw new WrennError("file_not_found", { message: `The sandbox has no ${given}.` });
  if (entry.type !== "file" && entry.type !== "directory") {
    throw new WrennError("wrong_file_type", { message: `${given} is neither a file nor a directory.` });
  }
  if (entry.type === "file" && endsAsDirectory(given)) {
    throw new WrennError("wrong_file_type", { message: `${given} is no directory.` });
  }
  return entry;
}

/** As the user has named it; only where that says nothing (`~`, `..`), as the sandbox does. */
function nameOf(given: string, entry: FileEntry): string {
  const own = path.posix.basename(given);
  if (!["", ".", "..", "~"].includes(own)) return own;
  return path.posix.basename(entry.name) === entry.name && entry.name !== ".." ? entry.name : "";
}

/** Of a link, the size is its own and not that of the file. */
function sizeOf(entry: FileEntry): number | null {
  return entry.symlinkTarget === null ? entry.size : null;
}

async function look(given: string): Promise<Found | null> {
  try {
    const stats = await stat(given);
    const kind = stats.isDirectory() ? "directory" : stats.isFile() ? "file" : "other";
    return { kind, realPath: await realpath(given) };
  } catch (error) {
    if (hasErrno(error, "ENOENT") || hasErrno(error, "ENOTDIR")) return null;
    throw error;
  }
}

async function downloadFile(
  from: SandboxSide,
  given: string,
  entry: FileEntry,
  target: Target,
  meter: Meter,
): Promise<void> {
  meter.totalBytes = sizeOf(entry);
  const pieces = Readable.from(meter.count(await from.files.readStream(given, from.options)));
  const { signal } = from.options;
  if (target.existing === "other") {
    // A device or a pipe is written to, not replaced.
    await pipeline(pieces, createWriteStream(target.path), { signal });
    return;
  }
  await withStage(path.dirname(target.path), async (stage) => {
    await pipeline(pieces, createWriteStream(stage, { flags: "wx", mode: 0o600 }), { signal });
    await keepAttributes(stage, entry);
    await rename(stage, target.path);
  });
}

async function downloadDirectory(
  from: SandboxSide,
  given: string,
  entry: FileEntry,
  target: Target,
  meter: Meter,
): Promise<void> {
  // On the file system of its place, which may be the place itself.
  const beside = target.existing === null ? path.dirname(target.path) : target.path;
  await withStage(beside, async (stage) => {
    await mkdir(stage, { mode: 0o700 });
    const archive = await from.files.readArchive(given, from.options);
    await unpack(meter.count(archive), stage, from.options.signal);
    if (target.existing === null) {
      await keepAttributes(stage, entry);
      await rename(stage, target.path);
    } else {
      await mergeDirectory(stage, target.path);
    }
  });
}

/** Does work with a path in the directory at which nothing is left afterwards. */
async function withStage(directory: string, work: (stage: string) => Promise<void>): Promise<void> {
  const stage = path.join(directory, stageName());
  try {
    await work(stage);
  } finally {
    await rm(stage, { recursive: true, force: true });
  }
}

async function keepAttributes(file: string, { mode, modifiedAt }: FileEntry): Promise<void> {
  await chmod(file, mode);
  await utimes(file, new Date(), modifiedAt);
}
