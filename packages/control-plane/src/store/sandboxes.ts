/** Rows of sandboxes: reading, listing, updating. They are made in reservations.ts; changes of status are in change-status.ts. */
import { residentStatuses, sandboxStatuses, updatableStatuses } from "@wrenn/contract";
import type { HostId, RecoverySource, SandboxId, SandboxStatus, TeamId, UpdateSandbox } from "@wrenn/contract";
import { sql } from "kysely";
import type { Store } from "./database.ts";
import { sandboxColumns } from "./schema.ts";
import type { SandboxRow } from "./schema.ts";

const qualifiedColumns = sandboxColumns.map((column) => `sandboxes.${column}` as const);

export type NamedSandboxRow = SandboxRow & { template: string };

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

/** The sandboxes that a host should hold something of. */
export async function sandboxesResident(store: Store, hostId: HostId): Promise<(SandboxRow & { overdue: boolean })[]> {
  return store
    .selectFrom("sandboxes")
    .select(sandboxColumns)
    .select(sql<boolean>`deadline_at IS NOT NULL AND deadline_at <= now()`.as("overdue"))
    .where("host_id", "=", hostId)
    .where("status", "in", residentStatuses)
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

/** Those of these sandboxes that the database knows: where they are, and whether their host should still hold something of them. */
export async function statusesOf(
  store: Store,
  ids: readonly SandboxId[],
): Promise<Map<SandboxId, { hostId: HostId | null; isResident: boolean }>> {
  if (ids.length === 0) return new Map();
  const rows = await store.selectFrom("sandboxes").select(["id", "host_id", "status"]).where("id", "in", ids).execute();
  const resident: readonly SandboxStatus[] = residentStatuses;
  return new Map(rows.map((row) => [row.id, { hostId: row.host_id, isResident: resident.includes(row.status) }]));
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

/** What a dead one can be recovered from has changed. Not a change of status. */
export async function recordRecoverable(
  store: Store,
  row: { id: SandboxId; version: number },
  recoverable: readonly RecoverySource[],
): Promise<void> {
  await store
    .updateTable("sandboxes")
    .set({
      recoverable: [...recoverable],
      // What can be recovered has run, whether or not anybody was told.
      ...(recoverable.length === 0 ? {} : { started_at: sql<Date>`coalesce(started_at, created_at)` }),
    })
    .where("id", "=", row.id)
    .where("version", "=", row.version)
    .where("status", "=", "error")
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
