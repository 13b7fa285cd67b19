/** What every build has in common: what it is given, its name by content, and its scratch. */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { isMissingFile, makeDirectory, pollUntil, run, runUnchecked, syncDirectory, type Layout } from "@wrenn/system";
import { scratchPrefix } from "./paths.ts";

export interface BuildOptions {
  readonly layout: Layout;
  /** Called with what is under way, a line at a time, for people to watch. */
  readonly onProgress?: (line: string) => void;
  readonly signal?: AbortSignal;
}

/** Milliseconds. Downloads and unpacking on a slow line and disk; a build that takes longer hangs. */
export const buildTimeoutMs = 900_000;

const removalTimeoutMs = 10_000;

/** A short name for what a recipe or its inputs are: the same inputs have the same name. */
export function contentName(inputs: unknown): string {
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex").slice(0, 16);
}

/** What a subprocess of a build is given: its lines shown, its life bound to the build's. */
export function toolOptions(options: Pick<BuildOptions, "onProgress" | "signal">): {
  timeoutMs: number;
  onLine?: (line: string) => void;
  signal?: AbortSignal;
} {
  return {
    timeoutMs: buildTimeoutMs,
    ...(options.onProgress === undefined ? {} : { onLine: options.onProgress }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
}

/** Makes an empty directory and removes whatever earlier, interrupted builds left beside it. */
export async function freshScratch(directory: string): Promise<void> {
  await makeDirectory(path.dirname(directory));
  await removeScratch(path.dirname(directory));
  await mkdir(directory);
}

/** Removes what interrupted builds left in a directory. Builds run under the set-up's lock, so nobody is using it. */
export async function removeScratch(parent: string): Promise<void> {
  const names = await readdir(parent).catch((error: unknown) => {
    if (isMissingFile(error)) return [];
    throw error;
  });
  for (const name of names) {
    if (name.startsWith(scratchPrefix)) await removeTree(path.join(parent, name));
  }
}

/**
 * Removes a directory tree. A killed build of a root filesystem can leave the host's /dev or /proc mounted in it: mounts
 * are taken away first, and the removal never crosses into another file system.
 */
export async function removeTree(directory: string): Promise<void> {
  const mounts = mountPoints(await readFile("/proc/self/mountinfo", "utf8"));
  const inside = mounts.filter((point) => point === directory || point.startsWith(`${directory}/`));
  for (const point of inside.toReversed()) await run("umount", ["--lazy", point]);
  let words = "";
  // The tools of a build that was killed end a moment later, and until then may put new files where others are removed.
  const removed = await pollUntil(
    async () => {
      const { exitCode, stderr } = await runUnchecked("rm", ["-rf", "--one-file-system", "--", directory], {
        timeoutMs: buildTimeoutMs,
      });
      words = stderr.trim();
      return exitCode === 0 ? true : null;
    },
    { timeoutMs: removalTimeoutMs, intervalMs: 200 },
  );
  if (removed === null) {
    throw new WrennError("subprocess_failed", { message: `${directory} could not be removed: ${words}` });
  }
}

/** Puts a finished directory in its place, in one step and for good. */
export async function publishDirectory(scratch: string, directory: string): Promise<void> {
  await syncTree(scratch);
  await removeTree(directory);
  await rename(scratch, directory);
  await syncDirectory(path.dirname(directory));
}

async function syncTree(directory: string): Promise<void> {
  // One flush of the file system costs less than one per file.
  await run("sync", ["--file-system", directory], { timeoutMs: buildTimeoutMs });
}

/** Mount points of a mountinfo file (proc(5)), in mounting order, with their octal escapes resolved. */
export function mountPoints(mountinfo: string): string[] {
  return mountinfo.split("\n").flatMap((line) => {
    const point = line.split(" ")[4];
    if (point === undefined) return [];
    return [point.replaceAll(/\\([0-7]{3})/g, (_, octal: string) => String.fromCodePoint(Number.parseInt(octal, 8)))];
  });
}
