/** Running other programs: argument arrays, never a shell string; every run has a deadline. */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { Readable } from "node:stream";
import { deadlines, WrennError } from "@wrenn/contract";

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Written to the program's standard input, which is closed after it. */
  input?: string | Buffer;
  /** Milliseconds; default `deadlines.subprocess`. The whole process group is killed when it passes. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** Called for each line of standard output and standard error as it comes. */
  onLine?: (line: string) => void;
}

export interface RunResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/** Enough of a failing program's words to explain it, little enough to show. */
const errorTailBytes = 2_000;

/**
 * Runs a program to its end and returns its output.
 * @throws WrennError `dependency_missing` when it is not installed, `subprocess_failed` when it exits with anything but 0.
 */
export async function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const result = await runUnchecked(program, args, options);
  if (result.exitCode !== 0) {
    const words = (result.stderr.trim() || result.stdout.trim()).slice(-errorTailBytes);
    throw new WrennError("subprocess_failed", {
      message: `${[program, ...args].join(" ").slice(0, 400)} exited with ${result.exitCode}: ${words}`,
      details: { program, exit_code: result.exitCode },
    });
  }
  return result;
}

/** As `run`, but any exit code is a result. Only a missing program, a passed deadline or an abort is an error. */
export async function runUnchecked(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const timeoutMs = options.timeoutMs ?? deadlines.subprocess;
  options.signal?.throwIfAborted();
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: options.env,
    detached: true,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  const killGroup = (): void => {
    if (child.pid === undefined) return;
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // The group has ended by itself.
    }
  };
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    killGroup();
  }, timeoutMs);
  options.signal?.addEventListener("abort", killGroup, { once: true });
  try {
    const ended = new Promise<number>((resolve, reject) => {
      child.once("error", (cause: NodeJS.ErrnoException) => {
        reject(spawnError(program, cause));
      });
      child.once("close", (code, signal) => {
        resolve(code ?? (signal === null ? 1 : 128));
      });
    });
    // A program that exits before it has read its input is judged by its exit code, not by EPIPE.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(options.input);
    const [exitCode, stdout, stderr] = await Promise.all([
      ended,
      collect(child.stdout, options.onLine),
      collect(child.stderr, options.onLine),
    ]);
    options.signal?.throwIfAborted();
    if (timedOut) {
      throw new WrennError("subprocess_failed", {
        message: `${[program, ...args].join(" ").slice(0, 400)} did not end within ${timeoutMs} ms and was killed.`,
        details: { program, timeout_ms: timeoutMs },
      });
    }
    return { exitCode, stdout, stderr };
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", killGroup);
  }
}

export interface DaemonOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Standard output and standard error are appended to this file. */
  logFile: string;
  /** Descriptors that the program gets besides: as `firstInherited`, and those that follow it. They stay open here too. */
  inherited?: readonly number[];
}

/** Below it are standard input, output and error. */
export const firstInherited = 3;

/**
 * Starts a program in a session of its own, which outlives this process. Resolves with its pid once it has been started;
 * `exited` settles when it ends while this process lives.
 */
export async function startDaemon(
  program: string,
  args: readonly string[],
  options: DaemonOptions,
): Promise<{ pid: number; exited: Promise<number> }> {
  const log = openSync(options.logFile, "a", 0o640);
  try {
    const child = spawn(program, args, {
      cwd: options.cwd ?? "/",
      env: options.env,
      detached: true,
      stdio: ["ignore", log, log, ...(options.inherited ?? [])],
    });
    const exited = new Promise<number>((resolve) => {
      child.once("exit", (code, signal) => {
        resolve(code ?? (signal === null ? 1 : 128));
      });
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (cause: NodeJS.ErrnoException) => {
        reject(spawnError(program, cause));
      });
    });
    child.unref();
    if (child.pid === undefined) throw new WrennError("subprocess_failed", { message: `${program} has no pid.` });
    return { pid: child.pid, exited };
  } finally {
    closeSync(log);
  }
}

/** Where a program lies on PATH, or null. */
export async function findProgram(name: string): Promise<string | null> {
  const { exitCode, stdout } = await runUnchecked("sh", ["-c", 'command -v -- "$1"', "sh", name]);
  return exitCode === 0 ? stdout.trim() : null;
}

export function spawnError(program: string, cause: NodeJS.ErrnoException): WrennError {
  return cause.code === "ENOENT"
    ? new WrennError("dependency_missing", { message: `${program} is not installed.`, details: { program }, cause })
    : new WrennError("subprocess_failed", { message: `${program} could not be started: ${cause.message}`, cause });
}

async function collect(stream: Readable | null, onLine: ((line: string) => void) | undefined): Promise<string> {
  if (stream === null) return "";
  let text = "";
  let partial = "";
  stream.setEncoding("utf8");
  for await (const chunk of stream as AsyncIterable<string>) {
    text += chunk;
    if (onLine === undefined) continue;
    const lines = (partial + chunk).split("\n");
    partial = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  }
  if (partial !== "") onLine?.(partial);
  return text;
}
