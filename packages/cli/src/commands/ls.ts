/** `wrenn ls`: the sandboxes of the key's team. */
import { Sandbox, type SandboxInfo } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { printJson } from "../terminal/messages.ts";
import { formatTable } from "../terminal/table.ts";
import { formatSpan } from "../units.ts";

export async function listSandboxes(options: { json: boolean }): Promise<number> {
  const { api } = await connectToServer(layoutFromEnvironment());
  const sandboxes: SandboxInfo[] = [];
  for await (const info of Sandbox.list(api)) sandboxes.push(info);
  if (options.json) {
    printJson({ sandboxes });
    return 0;
  }
  const rows = sandboxes.map((info) => [
    info.id,
    info.statusReason === null ? info.status : `${info.status} (${info.statusReason.code})`,
    info.template,
    String(info.vcpus),
    `${info.memoryMib} MiB`,
    formatSpan(Date.now() - info.createdAt.getTime()),
  ]);
  process.stdout.write(`${formatTable(["ID", "STATUS", "TEMPLATE", "VCPUS", "MEMORY", "AGE"], rows)}\n`);
  return 0;
}
