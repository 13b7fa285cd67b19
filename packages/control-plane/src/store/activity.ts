/**
 * When sandboxes were last used, as replicas record it. A replica's record is complete up to a time that it states with it, and
 * nobody's idleness is judged beyond the time up to which all records are complete.
 */
import type { SandboxId } from "@wrenn/contract";
import { sql } from "kysely";
import type { RawBuilder } from "kysely";
import { timeIn } from "./database.ts";
import type { Store } from "./database.ts";
import type { SandboxRow } from "./schema.ts";

export interface ActivityRecord {
  readonly replicaId: string;
  /** What was used before this time of the database's clock is in this record or an earlier one. Null: none is complete yet. */
  readonly completeUntil: Date | null;
  /** How long ago each sandbox was used. Ages, because the clocks of replicas differ. */
  readonly used: ReadonlyMap<SandboxId, number>;
}

/** Writes it down in one statement, which only moves times forward, and answers the database's time. */
export async function recordActivity(store: Store, { replicaId, completeUntil, used }: ActivityRecord): Promise<Date> {
  const { rows } = await sql<{ seen_at: Date }>`
    WITH used AS (
      SELECT id, now() - age * interval '1 millisecond' AS at
      FROM unnest(${sql.val([...used.keys()])}::uuid[], ${sql.val([...used.values()])}::float8[]) AS used (id, age)
    ), behind AS (
      SELECT sandboxes.id, used.at FROM sandboxes JOIN used USING (id)
      -- A pause that fails leaves it running, and what was used until then counts.
      WHERE status IN ('running', 'snapshotting', 'pausing') AND timeout_seconds IS NOT NULL AND last_active_at < used.at
      -- All replicas lock in one order, so that none waits for another that waits for it.
      ORDER BY sandboxes.id FOR NO KEY UPDATE OF sandboxes
    ), moved AS (
      UPDATE sandboxes SET last_active_at = behind.at FROM behind
      WHERE sandboxes.id = behind.id AND sandboxes.last_active_at < behind.at
    )
    INSERT INTO replicas (id, complete_until, seen_at)
    VALUES (${replicaId}, coalesce(${completeUntil}::timestamptz, '-infinity'), now())
    ON CONFLICT (id) DO UPDATE SET complete_until = excluded.complete_until, seen_at = excluded.seen_at
    RETURNING seen_at`.execute(store);
  const [row] = rows;
  if (row === undefined) throw new Error("recording activity has answered no time");
  return row.seen_at;
}

/** Nobody waits any more for what this replica records. */
export async function removeReplica(store: Store, replicaId: string): Promise<void> {
  await store.deleteFrom("replicas").where("id", "=", replicaId).execute();
}

/** Has nobody wait any more for replicas that have been silent for so long, and answers which those are. */
export async function removeSilentReplicas(store: Store, silenceMs: number): Promise<string[]> {
  const rows = await store.deleteFrom("replicas").where("seen_at", "<", timeIn(-silenceMs)).returning("id").execute();
  return rows.map(({ id }) => id);
}

/** A sandbox that nobody had used for its whole timeout when all replicas' records were last complete. */
export const idleForTooLong: RawBuilder<boolean> = sql<boolean>`
  sandboxes.timeout_seconds IS NOT NULL
  AND sandboxes.last_active_at + sandboxes.timeout_seconds * interval '1 second'
    <= (SELECT min(complete_until) FROM replicas)`;

export type IdleSandbox = Pick<SandboxRow, "id" | "status" | "version" | "on_timeout">;

/**
 * Running sandboxes with a timeout of at most so long that are idle for longer than it, without those that could not be paused a
 * short while ago. No more than `limit`.
 */
export async function findIdleSandboxes(
  store: Store,
  { longestTimeoutMs, limit }: { longestTimeoutMs: number; limit: number },
): Promise<IdleSandbox[]> {
  return store
    .selectFrom("sandboxes")
    .select(["id", "status", "version", "on_timeout"])
    .where("status", "=", sql.lit("running" as const))
    .where(idleForTooLong)
    .where(sql<boolean>`(on_timeout = 'destroy' OR pause_retry_at IS NULL OR pause_retry_at <= now())`)
    .where(sql<boolean>`timeout_seconds <= ${longestTimeoutMs / 1_000}::float8`)
    .limit(limit)
    .execute();
}
