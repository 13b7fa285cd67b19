/** One server per WRENN_DIR: a lock the kernel releases however the holder ends. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import type { Layout } from "@wrenn/system";

export interface HeldLock {
  release(): Promise<void>;
}

/**
 * Takes the server's lock, or returns null when another process holds it. Node cannot lock files itself: flock(1) holds
 * the lock for as long as its input stays open, which is as long as this process lives.
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
  ]);
  if (!held) return null;
  return {
    release: async () => {
      const exited = holder.exitCode === null ? once(holder, "exit") : Promise.resolve();
      holder.stdin.end();
      await exited;
    },
  };
}
