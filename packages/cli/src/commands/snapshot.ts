/** `wrenn snapshot`: named snapshots of sandboxes, from which others are started. */
import type { Snapshot as SnapshotBody } from "@wrenn/contract";
import { Sandbox, type SnapshotInfo } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { openSandbox } from "../open-sandbox.ts";
import { interruptible } from "../session/interrupts.ts";
import { waitForServer } from "../session/waiting.ts";
import { printJson } from "../terminal/messages.ts";
import { formatTable } from "../terminal/table.ts";
import { tryEachSnapshot } from "../try-each.ts";
import { formatBytes, formatSpan } from "../units.ts";
import type { CreateSnapshotFlags, ListSnapshotsFlags } from "../verbs/snapshots.ts";

const columns = ["NAME", "VCPUS", "MEMORY", "DISK", "SIZE", "AGE", "SANDBOX"] as const;

export async function listSnapshots(flags: ListSnapshotsFlags): Promise<number> {
  const { api } = await connectToServer(layoutFromEnvironment());
  const snapshots: SnapshotInfo[] = [];
  for await (const info of Sandbox.listSnapshots(api)) snapshots.push(info);
  if (flags.json === true) printJson({ snapshots: snapshots.map(toJson) });
  else if (flags.quiet === true) process.stdout.write(snapshots.map(({ name }) => `${name}\n`).join(""));
  else process.stdout.write(`${formatTable(columns, snapshots.map(toRow))}\n`);
  return 0;
}

/** Prints the name. */
export async function createSnapshot(
  given: string,
  name: string | undefined,
  flags: CreateSnapshotFlags,
): Promise<number> {
  const snapshot = await interruptible(async (interrupts) => {
    const { signal } = interrupts;
    const sandbox = await openSandbox(given, { signal });
    const doing = `taking a snapshot of ${sandbox.id}`;
    return waitForServer(doing, { interrupts, quiet: flags.json === true }, () =>
      sandbox.createSnapshot({ name, overwrite: flags.overwrite, signal }),
    );
  });
  if (flags.json === true) printJson(toJson(snapshot));
  else process.stdout.write(`${snapshot.name}\n`);
  return 0;
}

export async function removeSnapshots(names: readonly string[], flags: { json?: boolean }): Promise<number> {
  const options = { json: flags.json === true, doing: "deleting", done: "deleted" };
  return tryEachSnapshot(names, options, (name, api) => Sandbox.deleteSnapshot(name, api));
}

/** In the API's own words, so that programs may read either. */
function toJson(info: SnapshotInfo): SnapshotBody {
  return {
    id: info.id,
    team_id: info.teamId,
    name: info.name,
    sandbox_id: info.sandboxId,
    vcpus: info.vcpus,
    memory_mib: info.memoryMib,
    disk_mib: info.diskMib,
    size_bytes: info.sizeBytes,
    host_id: info.hostId,
    engine: info.engine,
    engine_version: info.engineVersion,
    cpu: info.cpu,
    disk_format: info.diskFormat,
    created_at: info.createdAt.toISOString(),
  };
}

function toRow(info: SnapshotInfo): string[] {
  return [
    info.name,
    String(info.vcpus),
    `${info.memoryMib} MiB`,
    `${info.diskMib} MiB`,
    formatBytes(info.sizeBytes),
    formatSpan(Date.now() - info.createdAt.getTime()),
    info.sandboxId ?? "",
  ];
}
