/** `wrenn kill`: a signal for a process of a sandbox. */
import { WrennError } from "@wrenn/contract";
import { openSandbox } from "../open-sandbox.ts";
import { printJson } from "../terminal/messages.ts";
import type { KillFlags } from "../verbs/commands.ts";

export async function killProcess(given: string, pid: number, flags: KillFlags): Promise<number> {
  const sandbox = await openSandbox(given);
  if (!(await sandbox.commands.kill(pid, flags.signal))) {
    throw new WrennError("process_not_found", {
      message: `${sandbox.id} has no process ${pid} that was started through Wrenn, or it has ended.`,
      suggestion: "`wrenn ps` shows those there are; for others, run `kill` in the sandbox: wrenn exec ID -- kill PID.",
    });
  }
  if (flags.json === true) printJson({ pid, signal: flags.signal });
  return 0;
}
