/** Rows of API keys: only hashes are stored. */
import { intervals, newId } from "@wrenn/contract";
import type { ApiKeyId, TeamId } from "@wrenn/contract";
import { sql } from "kysely";
import type { Store } from "./database.ts";

export interface ApiKeyOwner {
  readonly keyId: ApiKeyId;
  readonly keyName: string;
  readonly teamId: TeamId;
}

/** The owner of the key with this hash, unless it is revoked. */
export async function findApiKey(store: Store, hash: Buffer): Promise<ApiKeyOwner | null> {
  const row = await store
    .selectFrom("api_keys")
    .select(["id", "name", "team_id"])
    .where("key_hash", "=", hash)
    .where("revoked_at", "is", null)
    .executeTakeFirst();
  return row === undefined ? null : { keyId: row.id, keyName: row.name, teamId: row.team_id };
}

export async function insertApiKey(
  store: Store,
  key: { teamId: TeamId; name: string; hash: Buffer; prefix: string },
): Promise<ApiKeyId> {
  const id = newId("apiKey");
  await store
    .insertInto("api_keys")
    .values({ id, team_id: key.teamId, name: key.name, key_hash: key.hash, prefix: key.prefix })
    .execute();
  return id;
}

export async function revokeApiKey(store: Store, id: ApiKeyId): Promise<void> {
  await store
    .updateTable("api_keys")
    .set({ revoked_at: sql<Date>`now()` })
    .where("id", "=", id)
    .where("revoked_at", "is", null)
    .execute();
}

/** At most one write per key and minute, however busy the key is. */
export async function touchApiKey(store: Store, id: ApiKeyId): Promise<void> {
  await store
    .updateTable("api_keys")
    .set({ last_used_at: sql<Date>`now()` })
    .where("id", "=", id)
    .where((eb) =>
      eb.or([
        eb("last_used_at", "is", null),
        eb("last_used_at", "<", sql<Date>`now() - ${intervals.apiKeyLastUsed} * interval '1 millisecond'`),
      ]),
    )
    .execute();
}
