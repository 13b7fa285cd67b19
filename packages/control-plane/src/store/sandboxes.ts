/** Rows of sandboxes: reserving, reading, listing. Changes of status are in change-status.ts. */
import {
  engineMemoryOverheadMib,
  hostReserve,
  newId,
  occupyingStatuses,
  overcommit,
  sandboxStatuses,
  updatableStatuses,
} from "@wrenn/contract";
import type {
  HostId,
  SandboxId,
  SandboxStatus,
  TeamId,
  TemplateId,
  TimeoutAction,
  UpdateSandbox,
} from "@wrenn/contract";
import { sql } from "kysely";
import { timeIn } from "./database.ts";
import type { Store } from "./database.ts";
import { claimKey } from "./idempotency-keys.ts";
import type { KeyedRequest } from "./idempotency-keys.ts";
import { sandboxColumns } from "./schema.ts";
import type { SandboxRow } from "./schema.ts";

const qualifiedColumns = sandboxColumns.map((column) => `sandboxes.${column}` as const);

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

export type NamedSandboxRow = SandboxRow & { template: string };

/**
 * Inserts the row as `starting` on this host, in the transaction that makes sure the host has room for it. Null when it
 * has not. The host's row is locked meanwhile, so that of two that fit alone but not together one is refused.
 * @throws WrennError `idempotency_conflict` when another request has used the key of this one.
 */
export async function reserveSandbox(store: Store, hostId: HostId, sandbox: NewSandbox): Promise<SandboxRow | null> {
  return store.transaction().execute(async (transaction) => {
    const host = await transaction
      .selectFrom("hosts")
      .select(["cpu_count", "memory_mib"])
      .where("id", "=", hostId)
      .forUpdate()
      .executeTakeFirst();
    if (host === undefined) return null;
    const [used] = await usageOfHosts(transaction, [hostId]);
    const memoryMib = (used?.memoryMib ?? 0) + sandbox.memoryMib + engineMemoryOverheadMib;
    const vcpus = (used?.vcpus ?? 0) + sandbox.vcpus;
    if (memoryMib > host.memory_mib - hostReserve.memoryMib || vcpus > host.cpu_count * overcommit.vcpus) return null;
    const row = await transaction
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
      .returning(sandboxColumns)
      .executeTakeFirstOrThrow();
    await transaction
      .insertInto("sandbox_events")
      .values({
        id: newId("event"),
        sandbox_id: row.id,
        version: row.version,
        from_status: null,
        to_status: row.status,
        reason_code: null,
        reason_message: null,
      })
      .execute();
    if (sandbox.keyed !== undefined) await claimKey(transaction, sandbox.keyed, row.id);
    return row;
  });
}

export interface HostUsage {
  readonly hostId: HostId;
  /** What its sandboxes were promised, engines included. */
  readonly memoryMib: number;
  readonly vcpus: number;
}

/** Hosts without sandboxes are not in the answer. */
export async function usageOfHosts(store: Store, hostIds: readonly HostId[]): Promise<HostUsage[]> {
  if (hostIds.length === 0) return [];
  const rows = await store
    .selectFrom("sandboxes")
    .select(["host_id", sql<number>`sum(memory_mib + ${engineMemoryOverheadMib}::int)`.as("memory_mib")])
    .select(sql<number>`sum(vcpus)`.as("vcpus"))
    .where("host_id", "in", hostIds)
    .where("status", "in", occupyingStatuses)
    .groupBy("host_id")
    .execute();
  return rows.flatMap((row) =>
    row.host_id === null ? [] : [{ hostId: row.host_id, memoryMib: row.memory_mib, vcpus: row.vcpus }],
  );
}

export async function findSandbox(store: Store, id: SandboxId): Promise<NamedSandboxRow | null> {
  const row = await store
    .selectFrom("sandboxes")
    .innerJoin("templates", "templates.id", "sandboxes.template_id")
    .select(qualifiedColumns)
    .select("templates.name as template")
    .where("sandboxes.id", "=", id)
    .executeTakeFirst();
  return row ?? null;
}

export interface SandboxListing {
  readonly teamId: TeamId;
  readonly statuses: readonly SandboxStatus[];
  readonly limit: number;
  readonly template?: string | undefined;
  /** What a sandbox's metadata must have among others. */
  readonly metadata?: Record<string, string> | undefined;
  /** The last id of the page before. */
  readonly before?: SandboxId;
}

/** Newest first, by id: ids are time-ordered and unique, so that pages lose and repeat nothing. */
export async function listSandboxes(store: Store, listing: SandboxListing): Promise<NamedSandboxRow[]> {
  let query = store
    .selectFrom("sandboxes")
    .innerJoin("templates", "templates.id", "sandboxes.template_id")
    .select(qualifiedColumns)
    .select("templates.name as template")
    .where("sandboxes.team_id", "=", listing.teamId)
    .where("sandboxes.status", "in", listing.statuses)
    .orderBy("sandboxes.id", "desc")
    .limit(listing.limit);
  if (listing.before !== undefined) query = query.where("sandboxes.id", "<", listing.before);
  if (listing.template !== undefined) query = query.where("templates.name", "=", listing.template);
  if (listing.metadata !== undefined) {
    query = query.where(sql<boolean>`sandboxes.metadata @> ${JSON.stringify(listing.metadata)}::jsonb`);
  }
  return query.execute();
}

/**
 * Changes what is named and nothing else, so that changes at the same time, of its status too, keep what the others did. Counts
 * as use. Null when the team has no such sandbox, or it has come to its end.
 */
export async function updateSandbox(
  store: Store,
  teamId: TeamId,
  id: SandboxId,
  change: UpdateSandbox,
): Promise<NamedSandboxRow | null> {
  const row = await store
    .updateTable("sandboxes")
    .from("templates")
    .set({
      ...(change.metadata === undefined ? {} : { metadata: JSON.stringify(change.metadata) }),
      ...(change.timeout_seconds === undefined ? {} : { timeout_seconds: change.timeout_seconds }),
      ...(change.on_timeout === undefined ? {} : { on_timeout: change.on_timeout }),
      last_active_at: sql<Date>`greatest(sandboxes.last_active_at, now())`,
    })
    .whereRef("templates.id", "=", "sandboxes.template_id")
    .where("sandboxes.id", "=", id)
    .where("sandboxes.team_id", "=", teamId)
    .where("sandboxes.status", "in", updatableStatuses)
    .returning(qualifiedColumns)
    .returning("templates.name as template")
    .executeTakeFirst();
  return row ?? null;
}

/** The sandboxes that a host should hold. */
export async function sandboxesOccupying(store: Store, hostId: HostId): Promise<(SandboxRow & { overdue: boolean })[]> {
  return store
    .selectFrom("sandboxes")
    .select(sandboxColumns)
    .select(sql<boolean>`deadline_at IS NOT NULL AND deadline_at <= now()`.as("overdue"))
    .where("host_id", "=", hostId)
    .where("status", "in", occupyingStatuses)
    .execute();
}

/** How many sandboxes of all teams are in each status, `stopped` excepted: of those there may be any number. */
export async function countSandboxes(store: Store): Promise<Map<SandboxStatus, number>> {
  const statuses = sandboxStatuses.filter((status) => status !== "stopped");
  const rows = await store
    .selectFrom("sandboxes")
    .select(["status", sql<number>`count(*)`.as("count")])
    .where("status", "<>", "stopped")
    .groupBy("status")
    .execute();
  const counts = new Map(rows.map(({ status, count }) => [status, count]));
  return new Map(statuses.map((status) => [status, counts.get(status) ?? 0]));
}

/** Those of these sandboxes that the database knows: where they are, and whether they should still be there. */
export async function statusesOf(
  store: Store,
  ids: readonly SandboxId[],
): Promise<Map<SandboxId, { hostId: HostId | null; occupies: boolean }>> {
  if (ids.length === 0) return new Map();
  const rows = await store.selectFrom("sandboxes").select(["id", "host_id", "status"]).where("id", "in", ids).execute();
  const occupying: readonly SandboxStatus[] = occupyingStatuses;
  return new Map(rows.map((row) => [row.id, { hostId: row.host_id, occupies: occupying.includes(row.status) }]));
}

/** Has a transitional sandbox looked into at the next round, because nothing works on it any more. */
export async function expireDeadline(store: Store, row: { id: SandboxId; version: number }): Promise<void> {
  await store
    .updateTable("sandboxes")
    .set({ deadline_at: sql<Date>`now()` })
    .where("id", "=", row.id)
    .where("version", "=", row.version)
    .where("deadline_at", "is not", null)
    .execute();
}

/** What the data plane needs to know of a sandbox. */
export interface SandboxTarget {
  readonly teamId: TeamId;
  readonly status: SandboxStatus;
  readonly hostAddress: string | null;
}

export async function findSandboxTarget(store: Store, id: SandboxId): Promise<SandboxTarget | null> {
  const row = await store
    .selectFrom("sandboxes")
    .leftJoin("hosts", "hosts.id", "sandboxes.host_id")
    .select(["sandboxes.team_id", "sandboxes.status", "hosts.address"])
    .where("sandboxes.id", "=", id)
    .executeTakeFirst();
  return row === undefined ? null : { teamId: row.team_id, status: row.status, hostAddress: row.address };
}
