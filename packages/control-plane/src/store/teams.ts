/** Rows of teams. */
import { newId } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import type { Store } from "./database.ts";

/** The oldest team of that name; null when there is none. */
export async function findTeamByName(store: Store, name: string): Promise<TeamId | null> {
  const row = await store
    .selectFrom("teams")
    .select("id")
    .where("name", "=", name)
    .orderBy("created_at")
    .orderBy("id")
    .executeTakeFirst();
  return row?.id ?? null;
}

export async function insertTeam(store: Store, name: string): Promise<TeamId> {
  const id = newId("team");
  await store.insertInto("teams").values({ id, name }).execute();
  return id;
}
