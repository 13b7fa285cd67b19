/** `wrenn ls`: the sandboxes of the key's team. */
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { printJson } from "../terminal/messages.ts";
import { formatTable } from "../terminal/table.ts";
import { formatSpan } from "../units.ts";

export async function listSandboxes(options: { json: boolean }): Promise<number> {
  const { client } = await connectToServer(layoutFromEnvironment());
  const sandboxes = (await client.sandboxes.list()).map(({ info }) => info);
  if (options.json) {
    printJson({ sandboxes });
    return 0;
  }
  const rows = sandboxes.map((info) => [
    info.id,
    info.status_reason === null ? info.status : `${info.status} (${info.status_reason.code})`,
    info.template,
    String(info.vcpus),
    `${info.memory_mib} MiB`,
    formatSpan(Date.now() - Date.parse(info.created_at)),
  ]);
  process.stdout.write(`${formatTable(["ID", "STATUS", "TEMPLATE", "VCPUS", "MEMORY", "AGE"], rows)}\n`);
  return 0;
}
