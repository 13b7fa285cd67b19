/** Room on hosts: what is promised to sandboxes is counted with the host's row locked, in the transaction that promises it. */
import { engineMemoryOverheadMib, hostReserve, newId, occupyingStatuses, overcommit } from "@wrenn/contract";
import type { HostId, SandboxId, TeamId, TemplateId, TimeoutAction } from "@wrenn/contract";
import { sql } from "kysely";
import { changeStatus } from "./change-status.ts";
import { timeIn } from "./database.ts";
import type { Store } from "./database.ts";
import { claimKey } from "./idempotency-keys.ts";
import type { KeyedRequest } from "./idempotency-keys.ts";
import { sandboxColumns } from "./schema.ts";
import type { HostRow, SandboxRow } from "./schema.ts";

export interface NewSandbox {
  readonly id: SandboxId;
  readonly teamId: TeamId;
  readonly templateId: TemplateId;
  readonly templateTeamId: TeamId;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
  readonly metadata: Record<string, string>;
  readonly timeoutSeconds: number | null;
  readonly onTimeout: TimeoutAction;
  readonly deadlineMs: number;
  /** The request that asks for it, when that may be repeated. */
  readonly keyed?: KeyedRequest;
}

/**
 * Inserts the row as `starting` on this host, in the transaction that makes sure the host has room for it. Null when it has not.
 * @throws WrennError `idempotency_conflict` when another request has used the key of this one.
 */
export async function reserveSandbox(store: Store, hostId: HostId, sandbox: NewSandbox): Promise<SandboxRow | null> {
  return store.transaction().execute(async (transaction) => {
    if (!(await lockRoom(transaction, hostId, [sandbox]))) return null;
    const row = await insertStarting(transaction, hostId, sandbox);
    if (sandbox.keyed !== undefined) await claimKey(transaction, sandbox.keyed, row.id);
    return row;
  });
}

/** A sandbox that occupies nothing, and what it becomes while it is started again. */
export interface NewStart {
  readonly row: SandboxRow;
  readonly hostId: HostId;
  readonly to: "resuming" | "starting";
  readonly deadlineMs: number;
}

/** Promises it its room again, in the transaction that changes its status. Null when it was changed by somebody else since. */
export async function reserveStart(store: Store, start: NewStart): Promise<SandboxRow | "no_room" | null> {
  const { row, hostId, to, deadlineMs } = start;
  return store.transaction().execute(async (transaction) => {
    const size = { vcpus: row.vcpus, memoryMib: row.memory_mib };
    if (!(await lockRoom(transaction, hostId, [size]))) return "no_room";
    return changeStatus(transaction, { from: row, to, deadlineMs });
  });
}

export interface NewCopies {
  /** What is copied: it is `snapshotting` meanwhile, unless it is frozen already. */
  readonly source: SandboxRow;
  readonly hostId: HostId;
  readonly copies: readonly NewSandbox[];
  readonly deadlineMs: number;
}

export interface ReservedCopies {
  readonly source: SandboxRow;
  readonly copies: SandboxRow[];
}

/** All of them or none. Null when the source was changed by somebody else since. */
export async function reserveCopies(store: Store, ask: NewCopies): Promise<ReservedCopies | "no_room" | null> {
  const { hostId, copies, deadlineMs } = ask;
  return store.transaction().execute(async (transaction) => {
    if (!(await lockRoom(transaction, hostId, copies))) return "no_room";
    const source = await beginCopying(transaction, ask.source, deadlineMs);
    if (source === null) return null;
    const rows: SandboxRow[] = [];
    for (const copy of copies) rows.push(await insertStarting(transaction, hostId, copy));
    return { source, copies: rows };
  });
}

/** The source of a snapshot or of forks is marked before its host is asked. Null when it was changed by somebody else since. */
export async function beginCopying(store: Store, source: SandboxRow, deadlineMs: number): Promise<SandboxRow | null> {
  if (source.status === "running") return changeStatus(store, { from: source, to: "snapshotting", deadlineMs });
  const unchanged = await store
    .selectFrom("sandboxes")
    .select(sandboxColumns)
    .where("id", "=", source.id)
    .where("version", "=", source.version)
    .forUpdate()
    .executeTakeFirst();
  return unchanged ?? null;
}

/** Whether the host has room for all of these. Its row is locked, so that of two that fit alone but not together one is refused. */
async function lockRoom(
  transaction: Store,
  hostId: HostId,
  asks: readonly Pick<NewSandbox, "vcpus" | "memoryMib">[],
): Promise<boolean> {
  const host = await transaction
    .selectFrom("hosts")
    .select(["cpu_count", "memory_mib"])
    .where("id", "=", hostId)
    .forUpdate()
    .executeTakeFirst();
  if (host === undefined) return false;
  const used = await usageByHost(transaction).where("host_id", "=", hostId).executeTakeFirst();
  const memoryMib = asks.reduce((sum, ask) => sum + ask.memoryMib + engineMemoryOverheadMib, used?.memory_mib ?? 0);
  const vcpus = asks.reduce((sum, ask) => sum + ask.vcpus, used?.vcpus ?? 0);
  return memoryMib <= host.memory_mib - hostReserve.memoryMib && vcpus <= host.cpu_count * overcommit.vcpus;
}

async function insertStarting(transaction: Store, hostId: HostId, sandbox: NewSandbox): Promise<SandboxRow> {
  return transaction
    .with("inserted", (with_) =>
      with_
        .insertInto("sandboxes")
        .values({
          id: sandbox.id,
          team_id: sandbox.teamId,
          template_id: sandbox.templateId,
          template_team_id: sandbox.templateTeamId,
          host_id: hostId,
          status: "starting",
          vcpus: sandbox.vcpus,
          memory_mib: sandbox.memoryMib,
          disk_mib: sandbox.diskMib,
          metadata: JSON.stringify(sandbox.metadata),
          timeout_seconds: sandbox.timeoutSeconds,
          on_timeout: sandbox.onTimeout,
          deadline_at: timeIn(sandbox.deadlineMs),
        })
        .returning(sandboxColumns),
    )
    .with("event", (with_) =>
      with_
        .insertInto("sandbox_events")
        .columns(["id", "sandbox_id", "version", "to_status"])
        .expression((eb) =>
          eb
            .selectFrom("inserted")
            .select((select) => [
              select.val(newId("event")).as("id"),
              "inserted.id as sandbox_id",
              "inserted.version",
              "inserted.status as to_status",
            ]),
        ),
    )
    .selectFrom("inserted")
    .selectAll()
    .executeTakeFirstOrThrow();
}

export interface HostLoad {
  readonly host: HostRow;
  /** What its sandboxes were promised, engines included. */
  readonly usedMemoryMib: number;
  readonly usedVcpus: number;
}

export async function listHostLoads(store: Store): Promise<HostLoad[]> {
  const rows = await store
    .selectFrom("hosts")
    .leftJoin(usageByHost(store).as("used"), "used.host_id", "hosts.id")
    .selectAll("hosts")
    .select(["used.memory_mib as used_memory_mib", "used.vcpus as used_vcpus"])
    .orderBy("hosts.id")
    .execute();
  return rows.map(({ used_memory_mib, used_vcpus, ...host }) => ({
    host,
    usedMemoryMib: used_memory_mib ?? 0,
    usedVcpus: used_vcpus ?? 0,
  }));
}

/** Without the hosts that have no sandboxes. */
function usageByHost(store: Store) {
  return store
    .selectFrom("sandboxes")
    .select(["host_id", sql<number>`sum(memory_mib + ${engineMemoryOverheadMib}::int)`.as("memory_mib")])
    .select(sql<number>`sum(vcpus)`.as("vcpus"))
    .where("status", "in", occupyingStatuses)
    .groupBy("host_id");
}
