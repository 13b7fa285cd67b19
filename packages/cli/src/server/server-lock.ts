/** One server per WRENN_DIR: a lock the kernel releases however the holder ends. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";

export interface HeldLock {
  release(): Promise<void>;
}

/** What flock(1) exits with when --nonblock does not get the lock; any other code is a failure. */
const lockedExitCode = 1;

/**
 * Takes the server's lock, or returns null when another process holds it. Node cannot lock files itself: flock(1) holds
 * the lock for as long as its input stays open, which is as long as this process lives.
 * @throws WrennError `dependency_missing` without flock, `subprocess_failed` when it cannot lock.
 */
export async function takeServerLock(layout: Layout): Promise<HeldLock | null> {
  const holder = spawn(
    "flock",
    ["--nonblock", "--no-fork", layout.lock("server"), "sh", "-c", "echo held; exec cat >/dev/null"],
    // In a session of its own: a Ctrl-C in the terminal must not release the lock before the server has stopped.
    { stdio: ["pipe", "pipe", "inherit"], detached: true },
  );
  const held = await Promise.race([
    once(holder.stdout, "data").then(() => true),
    once(holder, "exit").then(() => false),
  ]).catch((cause: unknown) => {
    throw new WrennError("dependency_missing", {
      message: "flock is not installed.",
      suggestion: "Install it: apt-get install util-linux.",
      cause,
    });
  });
  if (!held && holder.exitCode === lockedExitCode) return null;
  if (!held) {
    throw new WrennError("subprocess_failed", {
      message: `flock could not lock ${layout.lock("server")}: it ended with ${holder.exitCode ?? holder.signalCode}.`,
    });
  }
  return {
    release: async () => {
      const exited = holder.exitCode === null ? once(holder, "exit") : Promise.resolve();
      holder.stdin.end();
      await exited;
    },
  };
}
