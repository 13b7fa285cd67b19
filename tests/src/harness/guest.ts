/** Running commands in a sandbox that tests share. */
import type { CommandOutput, RunOptions, Sandbox } from "@wrenn/sdk";
import { pollUntil } from "@wrenn/system";

/** Runs a shell command to its end; not in a login shell, which is slow to start in an emulated guest. */
export async function shell(sandbox: Sandbox, script: string, options: RunOptions = {}): Promise<CommandOutput> {
  return sandbox.commands.run(["/bin/bash", "-c", script], options);
}

/** Has the guest's kernel panic, and waits until the server knows. */
export async function crash(sandbox: Sandbox): Promise<void> {
  // The command ends with its guest.
  await shell(sandbox, "echo c > /proc/sysrq-trigger", { user: "root" }).catch(() => null);
  const isKnown = async (): Promise<true | null> => ((await sandbox.refresh()).status === "error" ? true : null);
  if ((await pollUntil(isKnown, { timeoutMs: 30_000, intervalMs: 100 })) === null) throw new Error("it does not die");
}
