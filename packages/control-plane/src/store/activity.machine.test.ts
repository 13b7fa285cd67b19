import { randomUUID } from "node:crypto";
import { newId, platformTeamId } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import { sql } from "kysely";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { TestDatabase } from "../testing/test-database.ts";
import { TestStore } from "../testing/test-store.ts";
import { findIdleSandboxes, idleForTooLong, recordActivity } from "./activity.ts";
import { changeStatus } from "./change-status.ts";
import { updateSandbox } from "./sandboxes.ts";

const hourMs = 3_600_000;

let database: TestDatabase;
let open: TestStore;

beforeAll(async () => {
  database = await TestDatabase.start();
});
afterAll(async () => database.stop());
beforeEach(async () => {
  open = await TestStore.open(database);
});
afterEach(async () => open.close());

/** One that was last used two hours ago. */
async function runningSandbox(timeoutSeconds: number | null = 3_600): Promise<SandboxId> {
  const row = await open.startingSandbox(timeoutSeconds);
  await changeStatus(open.store, { from: row, to: "running" });
  await open.store
    .updateTable("sandboxes")
    .set({ last_active_at: sql<Date>`now() - interval '2 hours'` })
    .where("id", "=", row.id)
    .execute();
  return row.id;
}

async function record(replicaId: string, completeUntil: Date | null, used: [SandboxId, number][] = []): Promise<Date> {
  return recordActivity(open.store, { replicaId, completeUntil, used: new Map(used) });
}

/** A replica whose records are complete up to now. */
async function upToDateReplica(): Promise<string> {
  const replicaId = randomUUID();
  await record(replicaId, await record(replicaId, null));
  return replicaId;
}

async function findIdle(longestTimeoutMs = Infinity): Promise<SandboxId[]> {
  return (await findIdleSandboxes(open.store, { longestTimeoutMs, limit: 10 })).map(({ id }) => id);
}

async function idleMinutes(id: SandboxId): Promise<number> {
  const row = await open.store
    .selectFrom("sandboxes")
    .select(sql<number>`round(extract(epoch FROM now() - last_active_at) / 60)::float8`.as("minutes"))
    .where("id", "=", id)
    .executeTakeFirstOrThrow();
  return row.minutes;
}

test("use is recorded by its age, only moves forward, and only where there is a timeout", async () => {
  const [timed, untimed] = [await runningSandbox(), await runningSandbox(null)];
  for (const [ageMs, expected] of [
    [hourMs, 60],
    [3 * hourMs, 60],
    [hourMs / 2, 30],
  ] as const) {
    await record(randomUUID(), null, [
      [timed, ageMs],
      [untimed, ageMs],
      [newId("sandbox"), ageMs],
    ]);
    expect(await idleMinutes(timed)).toBe(expected);
  }
  expect(await idleMinutes(untimed)).toBe(120);
});

test("nothing is idle before every replica has recorded all that it knew at that time", async () => {
  const id = await runningSandbox();
  expect(await findIdle()).toEqual([]);
  await upToDateReplica();
  expect(await findIdle()).toEqual([id]);
  const other = randomUUID();
  const first = await record(other, null);
  expect(await findIdle()).toEqual([]);
  await record(other, first);
  expect(await findIdle()).toEqual([id]);
  await record(other, new Date(first.getTime() - 1.5 * hourMs));
  expect(await findIdle()).toEqual([]);
});

test("only sandboxes with a timeout that is not longer than asked for are found", async () => {
  await upToDateReplica();
  const [short] = [await runningSandbox(1_800), await runningSandbox(3_600), await runningSandbox(null)];
  expect(await findIdle(1_800_000)).toEqual([short]);
  expect(await findIdle(1_799_000)).toEqual([]);
});

test.each([
  ["used", async (id: SandboxId) => record(randomUUID(), new Date(), [[id, 0]])],
  ["updated", async (id: SandboxId) => updateSandbox(open.store, platformTeamId, id, { metadata: {} })],
  [
    "freed of its timeout",
    async (id: SandboxId) => updateSandbox(open.store, platformTeamId, id, { timeout_seconds: null }),
  ],
])("a sandbox that is %s after it was found idle stays", async (_what, use) => {
  await upToDateReplica();
  const id = await runningSandbox();
  const [idle] = await findIdleSandboxes(open.store, { longestTimeoutMs: Infinity, limit: 1 });
  if (idle === undefined) throw new Error("not idle");
  const stop = async () =>
    changeStatus(open.store, { from: idle, to: "stopping", deadlineMs: 0, onlyIf: idleForTooLong });
  await use(id);
  expect(await stop()).toBeNull();
  await open.store
    .updateTable("sandboxes")
    .set({ last_active_at: sql<Date>`now() - interval '2 hours'`, timeout_seconds: 3_600 })
    .execute();
  expect(await stop()).toMatchObject({ id, status: "stopping" });
});

test("replicas that record the same sandboxes at the same time do not block each other", async () => {
  const ids = await Promise.all(Array.from({ length: 20 }, async () => runningSandbox()));
  const rounds = Array.from({ length: 30 }, async (_, round) =>
    record(
      randomUUID(),
      null,
      (round % 2 === 0 ? ids : ids.toReversed()).map((id) => [id, (30 - round) * 1_000]),
    ),
  );
  await Promise.all(rounds);
  expect(await idleMinutes(ids[0] ?? newId("sandbox"))).toBe(0);
});
