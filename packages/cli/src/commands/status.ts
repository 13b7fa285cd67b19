/** `wrenn status`: what runs of the server, and how it is. */
import { readFile } from "node:fs/promises";
import { hostAgentProto } from "@wrenn/contract";
import { isAlive, isMissingFile, type Layout, layoutFromEnvironment, type ProcessIdentity } from "@wrenn/system";
import { HostAgentClient } from "../server/host-agent-client.ts";
import { type PartName, readPartRecord } from "../server/part.ts";
import { isHealthy } from "../server/parts.ts";
import { readCredentials, readLiveServer } from "../server/server-record.ts";
import { printJson } from "../terminal/messages.ts";
import { formatTable } from "../terminal/table.ts";
import { formatSpan } from "../units.ts";

/** As service managers have it: the program is not running. */
const notRunningExitCode = 3;

interface ProcessStatus {
  name: string;
  pid: number;
  memory_mib: number;
  uptime_s: number;
}

export async function status(options: { json: boolean }): Promise<number> {
  const layout = layoutFromEnvironment();
  const server = await readLiveServer(layout);
  const processes = await listProcesses(layout, server);
  const host = await askHost(layout);
  const url = server?.url ?? (await readCredentials(layout))?.url ?? null;
  const healthy = server?.state === "ready" && url !== null && (await isHealthy(url));
  const state =
    server === null ? "not running" : healthy ? "healthy" : server.state === "ready" ? "degraded" : server.state;
  if (options.json) {
    printJson({ state, url: server === null ? null : url, processes, ...host });
  } else {
    print(state, server === null ? null : url, processes, host);
  }
  return healthy ? 0 : notRunningExitCode;
}

async function listProcesses(
  layout: Layout,
  server: { identity: ProcessIdentity; startedAt: string } | null,
): Promise<ProcessStatus[]> {
  const found: ProcessStatus[] = [];
  const add = async (name: string, record: { identity: ProcessIdentity; startedAt: string } | null): Promise<void> => {
    if (record === null || !(await isAlive(record.identity))) return;
    found.push({
      name,
      pid: record.identity.pid,
      memory_mib: await readMemoryMib(record.identity.pid),
      uptime_s: Math.max(0, Math.round((Date.now() - Date.parse(record.startedAt)) / 1_000)),
    });
  };
  await add("supervisor", server);
  for (const name of ["postgres", "host-agent", "control-plane"] satisfies PartName[]) {
    await add(name, await readPartRecord(layout, name));
  }
  return found;
}

/** Resident memory of the process alone; 0 when it has just ended. */
async function readMemoryMib(pid: number): Promise<number> {
  try {
    const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1];
    return Math.round(Number(kibibytes ?? 0) / 1_024);
  } catch (error) {
    if (isMissingFile(error)) return 0;
    throw error;
  }
}

interface HostStatus {
  engine: string | null;
  engine_version: string | null;
  engine_reason: string | null;
  disk_format: string | null;
  disk_reason: string | null;
  memory_backends: string[] | null;
  sandboxes_running: number | null;
  sandboxes_paused: number | null;
  slots_ready: number | null;
}

async function askHost(layout: Layout): Promise<HostStatus> {
  try {
    const agent = new HostAgentClient(layout);
    const [host, sandboxes] = await Promise.all([agent.getHost(), agent.listSandboxes()]);
    const { RUNNING, PAUSED } = hostAgentProto.SandboxState;
    return {
      engine: host.engine,
      engine_version: host.engineVersion,
      engine_reason: host.engineReason,
      disk_format: host.diskFormat,
      disk_reason: host.diskReason,
      memory_backends: host.memoryBackends,
      sandboxes_running: sandboxes.filter(({ state }) => state === RUNNING).length,
      sandboxes_paused: sandboxes.filter(({ state }) => state === PAUSED).length,
      slots_ready: host.slotsReady,
    };
  } catch {
    // It does not run, which the list of processes shows.
    return {
      engine: null,
      engine_version: null,
      engine_reason: null,
      disk_format: null,
      disk_reason: null,
      memory_backends: null,
      sandboxes_running: null,
      sandboxes_paused: null,
      slots_ready: null,
    };
  }
}

function print(state: string, url: string | null, processes: readonly ProcessStatus[], host: HostStatus): void {
  const lines = [`Wrenn is ${state}${url === null ? "" : ` at ${url}`}`];
  if (processes.length > 0) {
    const rows = processes.map((process) => [
      process.name,
      String(process.pid),
      `${process.memory_mib} MiB`,
      formatSpan(process.uptime_s * 1_000),
    ]);
    lines.push("", formatTable(["PART", "PID", "MEMORY", "UP FOR"], rows));
  }
  if (host.engine !== null) {
    const engine = host.engine === "" ? "none" : `${host.engine} ${host.engine_version ?? ""}`;
    lines.push("", `engine     ${engine}: ${host.engine_reason ?? ""}`);
    lines.push(`disks      ${host.disk_format ?? ""}: ${host.disk_reason ?? ""}`);
    lines.push(`memory     ${host.memory_backends?.join(", ") ?? ""}`);
    lines.push(`sandboxes  ${host.sandboxes_running} running, ${host.sandboxes_paused} paused`);
  }
  if (state === "not running") lines.push("start it with `wrenn up`");
  process.stdout.write(`${lines.join("\n")}\n`);
}
