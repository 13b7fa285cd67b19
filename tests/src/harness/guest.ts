/** Running commands in a sandbox that tests share. */
import type { CommandOptions, CommandResult, Sandbox } from "@wrenn/sdk";

export interface Output extends CommandResult {
  stdout: string;
  stderr: string;
}

/** Runs a shell command to its end and collects its output. */
export async function shell(sandbox: Sandbox, script: string, options: CommandOptions = {}): Promise<Output> {
  const collected = { stdout: "", stderr: "" };
  const command = await sandbox.commands.start("/bin/bash", {
    args: ["-c", script],
    stdin: false,
    ...options,
    onStdout: (bytes) => void (collected.stdout += Buffer.from(bytes).toString("utf8")),
    onStderr: (bytes) => void (collected.stderr += Buffer.from(bytes).toString("utf8")),
  });
  return { ...(await command.wait()), ...collected };
}
