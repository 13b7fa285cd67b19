import { afterAll, beforeAll, expect, test } from "vitest";
import { TestDatabase } from "../testing/test-database.ts";
import { TestStore } from "../testing/test-store.ts";
import { changeStatus } from "./change-status.ts";
import { findSandbox } from "./sandboxes.ts";
import type { SandboxRow } from "./schema.ts";

let database: TestDatabase;
let open: TestStore;

beforeAll(async () => {
  database = await TestDatabase.start();
  open = await TestStore.open(database);
});
afterAll(async () => {
  await open.close();
  await database.stop();
});

async function eventsOf(row: SandboxRow): Promise<(string | null)[][]> {
  const events = await open.store
    .selectFrom("sandbox_events")
    .selectAll()
    .where("sandbox_id", "=", row.id)
    .orderBy("version")
    .execute();
  return events.map((event) => [event.from_status, event.to_status, event.reason_code]);
}

test("of many changes from the same state one happens, with one event", async () => {
  const row = await open.startingSandbox();
  const reason = { code: "vm_died", message: "gone" };
  const changes = await Promise.all([
    ...Array.from({ length: 8 }, async () => changeStatus(open.store, { from: row, to: "running" })),
    ...Array.from({ length: 8 }, async () => changeStatus(open.store, { from: row, to: "error", reason })),
  ]);
  const happened = changes.filter((change) => change !== null);
  expect(happened).toHaveLength(1);
  expect(happened[0]?.version).toBe(row.version + 1);
  expect(await eventsOf(row)).toHaveLength(2);
});

test("a change from a state that was left and entered again is refused", async () => {
  const starting = await open.startingSandbox();
  const running = await changeStatus(open.store, { from: starting, to: "running" });
  if (running === null) throw new Error("did not change");
  const missing = await changeStatus(open.store, { from: running, to: "missing" });
  if (missing === null) throw new Error("did not change");
  await changeStatus(open.store, { from: missing, to: "running" });
  expect(await changeStatus(open.store, { from: running, to: "missing" })).toBeNull();
});

test("a change that the state machine does not have is a bug, not an update", async () => {
  const row = await open.startingSandbox();
  await expect(changeStatus(open.store, { from: row, to: "paused" })).rejects.toMatchObject({ code: "internal" });
  await expect(changeStatus(open.store, { from: row, to: "stopping" })).rejects.toMatchObject({ code: "internal" });
  expect(await findSandbox(open.store, row.id)).toMatchObject({ status: "starting", version: row.version });
});

test("a sandbox that is stopped keeps the reason for which it was being stopped", async () => {
  const row = await open.startingSandbox();
  const reason = { code: "host_unavailable", message: "away" };
  const stopping = await changeStatus(open.store, { from: row, to: "stopping", reason, deadlineMs: 0 });
  if (stopping === null) throw new Error("did not change");
  expect(stopping.deadline_at).toBeInstanceOf(Date);
  const stopped = await changeStatus(open.store, { from: stopping, to: "stopped" });
  expect(stopped).toMatchObject({ status: "stopped", status_reason_code: "host_unavailable", deadline_at: null });
  expect(stopped?.ended_at).toBeInstanceOf(Date);
  expect(await eventsOf(row)).toEqual([
    [null, "starting", null],
    ["starting", "stopping", "host_unavailable"],
    ["stopping", "stopped", "host_unavailable"],
  ]);
});
