/** Runs what is not done of a list of steps, under the set-up's lock, and says nothing when all of it is. */
import { statfs } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile, makeDirectory } from "@wrenn/system";
import { formatSpan } from "../units.ts";
import type { SetupStep } from "./step.ts";
import { StepDisplay, type SetupOutput } from "./step-display.ts";
import { withSetupLock } from "./setup-lock.ts";

export interface StepRunnerOptions {
  readonly steps: readonly SetupStep[];
  readonly lockFile: string;
  readonly output: SetupOutput;
  readonly signal: AbortSignal;
}

/** A step that failed with less than this free failed for want of space, whatever it said. */
const fullDiskBytes = 16 * 1_048_576;

/**
 * @throws WrennError `root_required` or `host_out_of_disk` before anything was done, or what the failing step threw, as
 * `setup_failed` where it has no code of its own.
 */
export async function runSetupSteps(options: StepRunnerOptions): Promise<void> {
  const { steps, lockFile, output, signal } = options;
  const pending = await pendingOf(steps);
  if (pending.length === 0) return;
  requireRoot(pending);
  await requireDiskSpace(pending);
  await makeDirectory(path.dirname(lockFile));
  const started = performance.now();
  const onWait = (): void => {
    output.write("Another Wrenn is setting up this machine; waiting for it.\n");
  };
  let ran = 0;
  await withSetupLock(lockFile, { onWait, signal }, async () => {
    for (const [index, step] of steps.entries()) {
      signal.throwIfAborted();
      // Whoever held the lock before may have done it.
      if (await step.isDone()) continue;
      await runStep(step, `[${index + 1}/${steps.length}] ${step.name}`, options);
      ran += 1;
    }
  });
  if (ran > 0) output.write(`This machine is set up, in ${formatSpan(performance.now() - started)}.\n`);
}

async function pendingOf(steps: readonly SetupStep[]): Promise<SetupStep[]> {
  const pending: SetupStep[] = [];
  for (const step of steps) {
    if (!(await step.isDone())) pending.push(step);
  }
  return pending;
}

function requireRoot(pending: readonly SetupStep[]): void {
  const step = pending.find(({ needsRoot }) => needsRoot);
  if (step === undefined || process.geteuid?.() === 0) return;
  throw new WrennError("root_required", {
    message: `Setting up this machine needs root. Not done yet: ${pending.map(({ name }) => name).join("; ")}.`,
  });
}

async function runStep(step: SetupStep, title: string, options: StepRunnerOptions): Promise<void> {
  await requireDiskSpace([step]);
  const display = new StepDisplay(options.output, title, step.expectedSeconds);
  try {
    await step.run({ say: display.say, signal: options.signal });
  } catch (error) {
    display.fail();
    options.signal.throwIfAborted();
    throw await explain(step, error);
  }
  display.succeed();
}

/** Checks all at once, so that nobody waits minutes to learn that the last step does not fit. */
async function requireDiskSpace(steps: readonly SetupStep[]): Promise<void> {
  const needed = new Map<string, number>();
  for (const { disk } of steps) {
    if (disk !== undefined) needed.set(disk.path, (needed.get(disk.path) ?? 0) + disk.bytes);
  }
  for (const [place, bytes] of needed) {
    const free = await freeBytes(place);
    if (free >= bytes) continue;
    throw outOfDisk(`Setting up this machine needs ${inGib(bytes)} free in ${place}; there are ${inGib(free)}.`, place);
  }
}

async function explain(step: SetupStep, error: unknown): Promise<WrennError> {
  const full = step.disk !== undefined && (await freeBytes(step.disk.path)) < fullDiskBytes;
  if (step.disk !== undefined && (full || hasErrno(error, "ENOSPC"))) {
    return outOfDisk(`${step.name} failed because ${step.disk.path} is full.`, step.disk.path, error);
  }
  if (error instanceof WrennError && error.code !== "subprocess_failed") return error;
  const words = error instanceof Error ? error.message : String(error);
  return new WrennError("setup_failed", { message: `${step.name} failed: ${words}`, cause: error });
}

function outOfDisk(message: string, place: string, cause?: unknown): WrennError {
  return new WrennError("host_out_of_disk", {
    message,
    suggestion: `Free space in ${place}, or choose another place for Wrenn's files with WRENN_DIR.`,
    details: { path: place },
    ...(cause === undefined ? {} : { cause }),
  });
}

/** Of the file system that holds the path, or will once its directories are made. */
async function freeBytes(place: string): Promise<number> {
  for (let at = place; ; at = path.dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch (error) {
      if (!isMissingFile(error) || at === path.dirname(at)) throw error;
    }
  }
}

function inGib(bytes: number): string {
  return `${(bytes / 1_073_741_824).toFixed(1)} GiB`;
}
