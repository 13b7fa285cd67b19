/** `wrenn get`: everything about one sandbox. */
import type { MemoryBackend, SandboxInfo } from "@wrenn/sdk";
import { openSandbox } from "../open-sandbox.ts";
import { recoveriesOf } from "../recoveries.ts";
import { sandboxToJson } from "../sandbox-json.ts";
import { printJson } from "../terminal/messages.ts";
import { paint, printable, statusColours } from "../terminal/text.ts";
import { formatSpan } from "../units.ts";

export async function getSandbox(given: string, flags: { json?: boolean }): Promise<number> {
  const { info } = await openSandbox(given);
  if (flags.json === true) printJson(sandboxToJson(info));
  else process.stdout.write(`${describe(info)}\n`);
  return 0;
}

const backends: Readonly<Record<MemoryBackend, string>> = {
  file: "mapped from files (file)",
  uffd: "fetched page by page by a pager (uffd)",
};

function since(time: Date): string {
  return `since ${time.toISOString()} (${formatSpan(Date.now() - time.getTime())})`;
}

function describe(info: SandboxInfo): string {
  const timeout =
    info.timeoutMs === null ? "never" : `after ${formatSpan(info.timeoutMs)} without use: ${info.onTimeout}`;
  const lines: (readonly [name: string, value: string | null])[] = [
    ["id", info.id],
    ["status", paint(info.status, statusColours[info.status])],
    ["paused", info.pausedAt === null ? null : since(info.pausedAt)],
    ["reason", info.statusReason === null ? null : `${info.statusReason.message} (${info.statusReason.code})`],
    ...recoveriesOf(info).map(([command, does]) => ["recover", `${command}  # ${does}`] as const),
    ["template", info.template],
    ["vcpus", String(info.vcpus)],
    ["memory", `${info.memoryMib} MiB`],
    ["disk", `${info.diskMib} MiB`],
    ["timeout", timeout],
    ["expires", info.expiresAt?.toISOString() ?? null],
    [
      "engine",
      info.engine === null || info.engineReason === null ? info.engine : `${info.engine}: ${info.engineReason}`,
    ],
    ["backend", info.memoryBackend === null ? null : backends[info.memoryBackend]],
    ["format", info.diskFormat],
    ["host", info.hostId],
    ["created", info.createdAt.toISOString()],
    ["started", info.startedAt?.toISOString() ?? null],
    ["team", info.teamId],
    ...Object.entries(info.metadata).map(([key, value]) => ["metadata", printable(`${key}=${value}`)] as const),
  ];
  const width = Math.max(...lines.map(([name]) => name.length));
  return lines.flatMap(([name, value]) => (value === null ? [] : [`${name.padEnd(width)}  ${value}`])).join("\n");
}
