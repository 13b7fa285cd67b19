/** Running commands in a sandbox that tests share. */
import type { CommandOutput, RunOptions, Sandbox } from "@wrenn/sdk";

/** Runs a shell command to its end; not in a login shell, which is slow to start in an emulated guest. */
export async function shell(sandbox: Sandbox, script: string, options: RunOptions = {}): Promise<CommandOutput> {
  return sandbox.commands.run(["/bin/bash", "-c", script], options);
}
