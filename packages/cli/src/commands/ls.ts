/** `wrenn ls`: the sandboxes of the key's team. */
import { sandboxStatuses, type SandboxStatus, WrennError } from "@wrenn/contract";
import { Sandbox, type SandboxInfo } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { recoveriesOf } from "../recoveries.ts";
import { sandboxToJson } from "../sandbox-json.ts";
import { printJson, say } from "../terminal/messages.ts";
import { type Cell, formatTable } from "../terminal/table.ts";
import { paint, statusColours } from "../terminal/text.ts";
import { formatSpan } from "../units.ts";
import type { ListFlags } from "../verbs/sandboxes.ts";

const columns = ["ID", "STATUS", "TEMPLATE", "VCPUS", "MEMORY", "BACKEND", "AGE"] as const;

export async function listSandboxes(flags: ListFlags): Promise<number> {
  const { api } = await connectToServer(layoutFromEnvironment());
  const filter = {
    status: flags.all === true ? sandboxStatuses : parseStatuses(flags.status),
    template: flags.template,
    metadata: flags.metadata,
  };
  const sandboxes: SandboxInfo[] = [];
  for await (const info of Sandbox.list({ ...api, ...filter })) sandboxes.push(info);
  if (flags.json === true) printJson({ sandboxes: sandboxes.map(sandboxToJson) });
  else if (flags.quiet === true) process.stdout.write(sandboxes.map(({ id }) => `${id}\n`).join(""));
  else {
    process.stdout.write(`${formatTable(columns, sandboxes.map(toRow))}\n`);
    sayRecoveries(sandboxes);
  }
  return 0;
}

function parseStatuses(text: string | undefined): SandboxStatus[] | undefined {
  return text?.split(",").map((given) => {
    const status = sandboxStatuses.find((known) => known === given);
    if (status !== undefined) return status;
    throw new WrennError("invalid_request", {
      message: `"${given}" is no status of a sandbox.`,
      suggestion: `Give one of ${sandboxStatuses.join(", ")}.`,
    });
  });
}

/** On standard error, for who reads the table: it is not part of it. */
function sayRecoveries(sandboxes: readonly SandboxInfo[]): void {
  for (const info of sandboxes) {
    const commands = recoveriesOf(info).map(([command]) => `\`${command}\``);
    if (commands.length > 0) say(`wrenn: ${info.id} has died; to start it again: ${commands.join(" or ")}`);
  }
}

/** What there is to say of a status beside itself: since when, or why. */
function remark({ pausedAt, statusReason }: SandboxInfo): string {
  const since = pausedAt === null ? [] : [`for ${formatSpan(Date.now() - pausedAt.getTime())}`];
  const remarks = [...since, ...(statusReason === null ? [] : [statusReason.code])];
  return remarks.length === 0 ? "" : ` (${remarks.join(", ")})`;
}

function toRow(info: SandboxInfo): Cell[] {
  return [
    info.id,
    { text: `${info.status}${remark(info)}`, show: (padded) => paint(padded, statusColours[info.status]) },
    info.template,
    String(info.vcpus),
    `${info.memoryMib} MiB`,
    info.memoryBackend ?? "",
    formatSpan(Date.now() - info.createdAt.getTime()),
  ];
}
