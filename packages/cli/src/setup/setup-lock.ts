/** One set-up at a time per WRENN_DIR: a lock that the kernel releases however its holder ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { WrennError } from "@wrenn/contract";

/**
 * Runs the work while holding the lock. When another process holds it, calls `onWait` and waits.
 * Node cannot lock files itself: flock(1) holds the lock for as long as its input stays open, hence no longer than this
 * process lives, even if that is killed.
 */
export async function withSetupLock<Result>(
  lockFile: string,
  options: { onWait: () => void; signal: AbortSignal },
  work: () => Promise<Result>,
): Promise<Result> {
  let holder = await hold(lockFile, "--nonblock", options.signal);
  if (holder === null) {
    options.onWait();
    holder = await hold(lockFile, "--exclusive", options.signal);
  }
  if (holder === null) {
    throw new WrennError("setup_failed", { message: `The lock ${lockFile} could not be taken.` });
  }
  try {
    return await work();
  } finally {
    const exited = holder.exitCode === null ? once(holder, "exit") : Promise.resolve();
    holder.stdin?.end();
    await exited;
  }
}

/** The process that holds the lock, or null when it could not be had. */
async function hold(lockFile: string, how: string, signal: AbortSignal): Promise<ChildProcess | null> {
  signal.throwIfAborted();
  const holder = spawn("flock", [how, "--no-fork", lockFile, "sh", "-c", "echo held; exec cat >/dev/null"], {
    // In a session of its own: a Ctrl-C in the terminal must not release the lock before the work has stopped.
    detached: true,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const kill = (): void => {
    holder.kill("SIGKILL");
  };
  signal.addEventListener("abort", kill, { once: true });
  try {
    const held = await Promise.race([
      once(holder.stdout, "data").then(() => true),
      once(holder, "exit").then(() => false),
    ]);
    signal.throwIfAborted();
    return held ? holder : null;
  } catch (cause) {
    signal.throwIfAborted();
    throw new WrennError("dependency_missing", {
      message: "flock is not installed.",
      suggestion: "Install it: apt-get install util-linux.",
      cause,
    });
  } finally {
    signal.removeEventListener("abort", kill);
  }
}
