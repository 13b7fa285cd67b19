/** Rows of hosts. */
import { newId, platformTeamId } from "@wrenn/contract";
import type { HostId } from "@wrenn/contract";
import { sql } from "kysely";
import type { Store } from "./database.ts";
import type { HostRow } from "./schema.ts";

/** Makes a host known by its address, or finds the one that is. It counts as away until its agent has answered. */
export async function ensureHost(store: Store, host: { name: string; address: string }): Promise<HostRow> {
  await store
    .insertInto("hosts")
    .values({
      id: newId("host"),
      name: host.name,
      type: "regular",
      team_id: platformTeamId,
      address: host.address,
      status: "unreachable",
      contact_lost_at: sql<Date>`now()`,
    })
    .onConflict((conflict) => conflict.column("address").doNothing())
    .execute();
  return store.selectFrom("hosts").selectAll().where("address", "=", host.address).executeTakeFirstOrThrow();
}

export async function listHosts(store: Store): Promise<HostRow[]> {
  return store.selectFrom("hosts").selectAll().orderBy("id").execute();
}

export async function findHost(store: Store, id: HostId): Promise<HostRow | null> {
  return (await store.selectFrom("hosts").selectAll().where("id", "=", id).executeTakeFirst()) ?? null;
}

/** What an agent says of its machine. */
export type HostFacts = Pick<
  HostRow,
  | "cpu_count"
  | "memory_mib"
  | "agent_version"
  | "engine"
  | "engine_version"
  | "engine_reason"
  | "cpu"
  | "disk_format"
  | "disk_reason"
  | "disk_formats"
  | "memory_backends"
>;

/** The agent answered. */
export async function recordContact(store: Store, id: HostId, facts: HostFacts): Promise<void> {
  await store
    .updateTable("hosts")
    .set({ status: "online", ...facts, last_seen_at: sql<Date>`now()`, contact_lost_at: null })
    .where("id", "=", id)
    .execute();
}

/** The agent did not answer. After `silenceMs` without an answer the host is unreachable: the answer says whether it is. */
export async function recordSilence(store: Store, id: HostId, silenceMs: number): Promise<boolean> {
  const silent = sql<boolean>`coalesce(last_seen_at, created_at) < now() - ${silenceMs} * interval '1 millisecond'`;
  const row = await store
    .updateTable("hosts")
    .set({
      contact_lost_at: sql<Date>`coalesce(contact_lost_at, now())`,
      status: sql`CASE WHEN ${silent} THEN 'unreachable' ELSE status END`,
    })
    .where("id", "=", id)
    .returning(silent.as("silent"))
    .executeTakeFirst();
  return row?.silent ?? false;
}
