/**
 * Rows of snapshots, which are templates. One that is being created (`creating`) has no name for others yet; `publishSnapshot` gives
 * it the name and takes it from an older one in the same moment. A row whose files have to go is `deleting` until they are gone.
 */
import { deadlines, WrennError } from "@wrenn/contract";
import type { GenerationId, HostId, SandboxId, TeamId, TemplateId } from "@wrenn/contract";
import { sql } from "kysely";
import pg from "pg";
import { timeIn } from "./database.ts";
import type { Store } from "./database.ts";
import type { SandboxRow, TemplateRow } from "./schema.ts";

export interface NewSnapshot {
  readonly id: TemplateId;
  readonly teamId: TeamId;
  readonly name: string;
  readonly source: SandboxRow;
  readonly hostId: HostId;
  readonly deadlineMs: number;
}

/** @throws WrennError `snapshot_name_taken` when one of that name is being created, or the platform's has it */
export async function insertSnapshot(store: Store, snapshot: NewSnapshot): Promise<TemplateRow> {
  const { id, teamId, name, source, hostId, deadlineMs } = snapshot;
  try {
    return await store
      .insertInto("templates")
      .values({
        id,
        team_id: teamId,
        name,
        type: "snapshot",
        vcpus: source.vcpus,
        memory_mib: source.memory_mib,
        disk_mib: source.disk_mib,
        host_id: hostId,
        source_sandbox_id: source.id,
        engine: source.engine,
        engine_version: source.engine_version,
        cpu: source.cpu,
        disk_format: source.disk_format,
        status: "creating",
        deadline_at: timeIn(deadlineMs),
      })
      .returningAll()
      .executeTakeFirstOrThrow();
  } catch (error) {
    if (!(error instanceof pg.DatabaseError) || error.code !== "23505") throw error;
    throw new WrennError("snapshot_name_taken", {
      ...(error.constraint === "templates_name_being_created"
        ? { message: "A snapshot of that name is being created." }
        : {}),
      cause: error,
    });
  }
}

export interface SnapshotFacts {
  readonly generationId: GenerationId;
  readonly sizeBytes: number;
  /** What a host must have in order to start it. */
  readonly machine: Pick<TemplateRow, "engine" | "engine_version" | "cpu" | "disk_format">;
}

export interface Published {
  readonly snapshot: TemplateRow;
  /** Those that have lost their name to it. Their files have to go. */
  readonly replaced: TemplateRow[];
}

/** Gives the complete snapshot its name, in the moment in which an older one loses it. Null when it is not `creating` any more. */
export async function publishSnapshot(store: Store, row: TemplateRow, facts: SnapshotFacts): Promise<Published | null> {
  return store.transaction().execute(async (transaction) => {
    const creating = await transaction
      .selectFrom("templates")
      .select("id")
      .where("id", "=", row.id)
      .where("status", "=", "creating")
      .forUpdate()
      .executeTakeFirst();
    if (creating === undefined) return null;
    const replaced = await transaction
      .updateTable("templates")
      .set({ status: "deleting", deleted_at: sql<Date>`now()`, deadline_at: timeIn(deadlines.deleteSnapshot) })
      .where("team_id", "=", row.team_id)
      .where("name", "=", row.name)
      .where("type", "=", "snapshot")
      .where("status", "in", ["ready", "deleting"])
      .where("deleted_at", "is", null)
      .returningAll()
      .execute();
    const snapshot = await transaction
      .updateTable("templates")
      .set({
        status: "ready",
        deadline_at: null,
        generation_id: facts.generationId,
        size_bytes: facts.sizeBytes,
        ...facts.machine,
      })
      .where("id", "=", row.id)
      .returningAll()
      .executeTakeFirstOrThrow();
    return { snapshot, replaced };
  });
}

/** It has lost its name, or never had one: its files have to go. Null when they are gone, or it was published. */
export async function abandonSnapshot(store: Store, id: TemplateId): Promise<TemplateRow | null> {
  const row = await store
    .updateTable("templates")
    .set({ status: "deleting", deleted_at: sql<Date>`now()`, deadline_at: timeIn(deadlines.deleteSnapshot) })
    .where("id", "=", id)
    .where("status", "=", "creating")
    .returningAll()
    .executeTakeFirst();
  return row ?? null;
}

/** No sandbox starts from it any more. It keeps its name, and is listed, until its files are gone. */
export async function beginDeletion(store: Store, id: TemplateId): Promise<TemplateRow | null> {
  const row = await store
    .updateTable("templates")
    .set({ status: "deleting", deadline_at: timeIn(deadlines.deleteSnapshot) })
    .where("id", "=", id)
    .where("status", "in", ["ready", "deleting"])
    .returningAll()
    .executeTakeFirst();
  return row ?? null;
}

/** Its files are gone. */
export async function finishDeletion(store: Store, id: TemplateId): Promise<void> {
  await store
    .updateTable("templates")
    .set({ status: "deleted", deadline_at: null, deleted_at: sql<Date>`coalesce(deleted_at, now())` })
    .where("id", "=", id)
    .where("status", "=", "deleting")
    .execute();
}

/** Has one that is being created or deleted looked into at the next round, because nothing works on it any more. */
export async function expireSnapshot(store: Store, id: TemplateId): Promise<void> {
  await store
    .updateTable("templates")
    .set({ deadline_at: sql<Date>`now()` })
    .where("id", "=", id)
    .where("deadline_at", "is not", null)
    .execute();
}

/** A team's snapshot that has its name, also one whose files are being removed. */
export async function findSnapshot(store: Store, teamId: TeamId, name: string): Promise<TemplateRow | null> {
  const row = await store
    .selectFrom("templates")
    .selectAll()
    .where("team_id", "=", teamId)
    .where("name", "=", name)
    .where("type", "=", "snapshot")
    .where("status", "in", ["ready", "deleting"])
    .where("deleted_at", "is", null)
    .executeTakeFirst();
  return row ?? null;
}

/** Newest first, by id. `before` is the last id of the page before. */
export async function listSnapshots(
  store: Store,
  { teamId, limit, before }: { teamId: TeamId; limit: number; before?: TemplateId },
): Promise<TemplateRow[]> {
  let query = store
    .selectFrom("templates")
    .selectAll()
    .where("team_id", "=", teamId)
    .where("type", "=", "snapshot")
    .where("status", "in", ["ready", "deleting"])
    .where("deleted_at", "is", null)
    .orderBy("id", "desc")
    .limit(limit);
  if (before !== undefined) query = query.where("id", "<", before);
  return query.execute();
}

/** What of a host's snapshots has to be looked into, because nobody works on it any more. */
export async function staleSnapshots(store: Store, hostId: HostId): Promise<TemplateRow[]> {
  return store
    .selectFrom("templates")
    .selectAll()
    .where("host_id", "=", hostId)
    .where("deadline_at", "<=", sql<Date>`now()`)
    .execute();
}

/** Those of these templates that the database knows: whether a host should still have them. */
export async function knownSnapshots(
  store: Store,
  ids: readonly TemplateId[],
): Promise<Map<TemplateId, { readonly isKept: boolean }>> {
  if (ids.length === 0) return new Map();
  const rows = await store.selectFrom("templates").select(["id", "status"]).where("id", "in", ids).execute();
  return new Map(rows.map(({ id, status }) => [id, { isKept: status !== "deleted" }]));
}

/** The sandbox whose token the frozen guest agent of a template demands; null for one that was never started. */
export function tokenOwner(template: TemplateRow): SandboxId | null {
  return template.type === "snapshot" ? template.source_sandbox_id : null;
}
