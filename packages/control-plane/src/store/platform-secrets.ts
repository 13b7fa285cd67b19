/** Secrets made once per database and shared by all replicas. */
import { randomBytes } from "node:crypto";
import type { Store } from "./database.ts";

/** The secret of that name, made by whichever replica asks first. */
export async function ensurePlatformSecret(store: Store, name: string): Promise<Buffer> {
  await store
    .insertInto("platform_secrets")
    .values({ name, value: randomBytes(32) })
    .onConflict((conflict) => conflict.column("name").doNothing())
    .execute();
  const row = await store
    .selectFrom("platform_secrets")
    .select("value")
    .where("name", "=", name)
    .executeTakeFirstOrThrow();
  return row.value;
}
