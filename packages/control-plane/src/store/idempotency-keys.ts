/** Which requests to create have been made with an Idempotency-Key, and which sandbox each has led to. */
import { WrennError } from "@wrenn/contract";
import type { SandboxId, TeamId } from "@wrenn/contract";
import { sql } from "kysely";
import type { RawBuilder } from "kysely";
import type { StatusReason } from "./change-status.ts";
import { timeIn } from "./database.ts";
import type { Store } from "./database.ts";

/** A request and its key, as they are kept: services/idempotency-keys.ts makes the hashes. */
export interface KeyedRequest {
  readonly teamId: TeamId;
  readonly keyHash: Buffer;
  readonly requestHash: Buffer;
}

export interface KeyUse {
  readonly sandboxId: SandboxId;
  readonly requestHash: Buffer;
  /** Why the sandbox never ran, unless it did, is on its way, or was destroyed before. */
  readonly failure: StatusReason | null;
}

/** What the key was used for; null when it was not, or that has been forgotten. */
export async function findKeyUse(store: Store, { teamId, keyHash }: KeyedRequest): Promise<KeyUse | null> {
  const row = await store
    .selectFrom("idempotency_keys")
    .leftJoin("sandbox_events", (join) =>
      join.onRef("sandbox_events.sandbox_id", "=", "idempotency_keys.sandbox_id").on(endsFailedCreate),
    )
    .select([
      "idempotency_keys.sandbox_id",
      "idempotency_keys.request_hash",
      "sandbox_events.reason_code",
      "sandbox_events.reason_message",
    ])
    .where("idempotency_keys.team_id", "=", teamId)
    .where("key_hash", "=", keyHash)
    .executeTakeFirst();
  if (row === undefined) return null;
  const failure = row.reason_code === null ? null : { code: row.reason_code, message: row.reason_message ?? "" };
  return { sandboxId: row.sandbox_id, requestHash: row.request_hash, failure };
}

/**
 * Ties the key to this sandbox, in the transaction that makes it. A key whose sandbox never ran is free again.
 * @throws WrennError `idempotency_conflict` when another request was first.
 */
export async function claimKey(
  transaction: Store,
  { teamId, keyHash, requestHash }: KeyedRequest,
  sandboxId: SandboxId,
): Promise<void> {
  const claimed = await transaction
    .insertInto("idempotency_keys")
    .values({ team_id: teamId, key_hash: keyHash, request_hash: requestHash, sandbox_id: sandboxId })
    .onConflict((conflict) =>
      conflict
        .columns(["team_id", "key_hash"])
        .doUpdateSet((eb) => ({
          request_hash: eb.ref("excluded.request_hash"),
          sandbox_id: eb.ref("excluded.sandbox_id"),
          created_at: sql<Date>`now()`,
        }))
        .where(
          sql<boolean>`EXISTS (
            SELECT FROM sandbox_events WHERE sandbox_id = idempotency_keys.sandbox_id AND ${endsFailedCreate}
          )`,
        ),
    )
    .returning("sandbox_id")
    .executeTakeFirst();
  if (claimed === undefined) throw new WrennError("idempotency_conflict");
}

/** Forgets the keys that were used longer ago. */
export async function forgetKeyUses(store: Store, olderThanMs: number): Promise<void> {
  await store.deleteFrom("idempotency_keys").where("created_at", "<", timeIn(-olderThanMs)).execute();
}

/**
 * The event of a sandbox that did not come to run, and not because somebody destroyed it, who gives no reason. A later one is of a
 * recovery that failed.
 */
const endsFailedCreate: RawBuilder<boolean> = sql<boolean>`
  sandbox_events.version <= 3
  AND sandbox_events.from_status IN ('pending', 'starting')
  AND sandbox_events.to_status <> 'running'
  AND sandbox_events.reason_code IS NOT NULL`;
