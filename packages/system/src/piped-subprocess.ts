/** A program whose input or output is a stream of any length, such as an archiver. */
import { spawn } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { spawnError } from "./subprocess.ts";

export interface PipedProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Resolves once it has ended and all its output has been read; rejects with `dependency_missing` when it is not installed. */
  readonly ended: Promise<{ exitCode: number; stderr: string }>;
  /** Ends it at once. */
  kill(): void;
}

export interface PipeOptions {
  env?: NodeJS.ProcessEnv;
  /** What permissions files that it makes do not get; default this process's own. */
  umask?: number;
}

/** What is kept of standard error: enough of a failing program's words to explain it. */
const keptErrorBytes = 8_192;

/**
 * Starts a program in a process group of its own, so that a Ctrl-C is not for it but for us. There is no deadline: whoever uses it
 * kills it.
 */
export function startPiped(program: string, args: readonly string[], options: PipeOptions = {}): PipedProcess {
  const child = withUmask(options.umask, () =>
    spawn(program, args, { env: options.env, detached: true, stdio: ["pipe", "pipe", "pipe"] }),
  );
  let stderr = "";
  child.stderr.setEncoding("utf8");
  child.stderr.on("data", (text: string) => {
    stderr = (stderr + text).slice(-keptErrorBytes);
  });
  const ended = new Promise<{ exitCode: number; stderr: string }>((resolve, reject) => {
    child.once("error", (cause: NodeJS.ErrnoException) => reject(spawnError(program, cause)));
    child.once("close", (code) => resolve({ exitCode: code ?? 128, stderr }));
  });
  // Whoever waits is told; one that was killed is waited for by nobody.
  ended.catch(() => undefined);
  return { stdin: child.stdin, stdout: child.stdout, ended, kill: () => void child.kill("SIGKILL") };
}

/** A child takes over the umask of the moment it is started in. */
function withUmask<Result>(umask: number | undefined, work: () => Result): Result {
  if (umask === undefined) return work();
  const earlier = process.umask(umask);
  try {
    return work();
  } finally {
    process.umask(earlier);
  }
}
