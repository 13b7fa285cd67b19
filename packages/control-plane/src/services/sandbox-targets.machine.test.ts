import { newId, parseUuid } from "@wrenn/contract";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { createLog } from "@wrenn/system";
import { openDatabase } from "../store/database.ts";
import type { OpenDatabase } from "../store/database.ts";
import { insertTeam } from "../store/teams.ts";
import { TestDatabase } from "../testing/test-database.ts";
import { TestServer } from "../testing/test-server.ts";
import { ApiKeys } from "./api-keys.ts";
import { SandboxTargets } from "./sandbox-targets.ts";

let database: TestDatabase;
let server: TestServer;
let open: OpenDatabase;

beforeAll(async () => {
  database = await TestDatabase.start({ own: true });
  server = await TestServer.start({}, database);
  open = openDatabase(server.databaseUrl, () => undefined);
});
afterAll(async () => {
  await open.close();
  await server.stop();
  await database.stop();
});
afterEach(() => {
  vi.restoreAllMocks();
});

/** Only what is remembered grows older: real waiting would take minutes. */
function letTimePass(milliseconds: number): void {
  const now = performance.now();
  vi.spyOn(performance, "now").mockReturnValue(now + milliseconds);
}

test("places and keys that are known are believed while the database is away, for a while", async () => {
  const { uuid } = await server.create();
  const id = parseUuid("sandbox", uuid);
  const targets = new SandboxTargets(open.store);
  const apiKeys = new ApiKeys(open.store, createLog({ level: "silent" }));
  const { key } = await apiKeys.create(await insertTeam(open.store, "outage"), "outage");
  const owner = await apiKeys.verify(key);
  expect(await targets.find(id)).toMatchObject({ status: "running" });
  await database.pause();
  letTimePass(10_000);
  expect(await targets.find(id)).toMatchObject({ status: "running" });
  expect(await apiKeys.verify(key)).toEqual(owner);
  await expect(targets.find(newId("sandbox"))).rejects.toMatchObject({ code: "database_unavailable" });
  letTimePass(400_000);
  await expect(targets.find(id)).rejects.toMatchObject({ code: "database_unavailable" });
  await expect(apiKeys.verify(key)).rejects.toMatchObject({ code: "database_unavailable" });
  await database.resume();
  expect(await targets.find(id)).toMatchObject({ status: "running" });
  expect(await apiKeys.verify(key)).toEqual(owner);
});

test("what is forgotten while it is being asked for is not remembered from before", async () => {
  const { id, uuid } = await server.create();
  const targets = new SandboxTargets(open.store);
  const sandboxId = parseUuid("sandbox", uuid);
  const asking = targets.find(sandboxId);
  targets.invalidate(sandboxId);
  expect(await asking).toMatchObject({ status: "running" });
  expect(targets.peek(sandboxId)).toBeUndefined();
  await server.call("DELETE", `/v1/sandboxes/${id}`);
  expect(await targets.find(sandboxId)).toMatchObject({ status: "stopped" });
});
