/** `wrenn ps`: the processes of a sandbox. */
import { openSandbox } from "../open-sandbox.ts";
import { printJson } from "../terminal/messages.ts";
import { formatTable } from "../terminal/table.ts";

export async function listProcesses(given: string, flags: { json?: boolean }): Promise<number> {
  const sandbox = await openSandbox(given);
  const processes = await sandbox.commands.list();
  if (flags.json === true) {
    printJson({ processes });
    return 0;
  }
  const rows = processes.map(({ pid, tag, cmd, args }) => [String(pid), tag ?? "", [cmd, ...args].join(" ")]);
  process.stdout.write(`${formatTable(["PID", "TAG", "COMMAND"], rows)}\n`);
  return 0;
}
