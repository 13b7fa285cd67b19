import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createLog } from "@wrenn/system";
import { openDatabase } from "../store/database.ts";
import type { OpenDatabase } from "../store/database.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import { TestDatabase } from "../testing/test-database.ts";
import { ApiKeys } from "./api-keys.ts";
import { credentialsSchema, ensureLocalCredentials } from "./local-credentials.ts";
import type { Credentials } from "./local-credentials.ts";

const log = createLog({ level: "silent" });
const url = "http://127.0.0.1:7070";

let database: TestDatabase;
let open: OpenDatabase;
let directory: string;
let file: string;

beforeAll(async () => {
  database = await TestDatabase.start();
});
afterAll(async () => database.stop());
beforeEach(async () => {
  open = await newDatabase();
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-credentials-"));
  file = path.join(directory, "credentials.json");
});
afterEach(async () => {
  await open.close();
  await rm(directory, { recursive: true, force: true });
});

async function newDatabase(): Promise<OpenDatabase> {
  const databaseUrl = await database.create();
  await migrate(databaseUrl, await readMigrations());
  return openDatabase(databaseUrl, () => undefined);
}

async function ensure(at = url, { store } = open): Promise<Credentials> {
  return ensureLocalCredentials({ store, apiKeys: new ApiKeys(store, log), log }, file, at);
}

async function content(): Promise<Credentials> {
  return credentialsSchema.parse(JSON.parse(await readFile(file, "utf8")));
}

test("the first start makes a key that only its owner can read, and the next keeps it", async () => {
  const made = await ensure();
  expect(made).toMatchObject({ url, api_key: expect.stringMatching(/^wrn_[0-9a-f]{40}$/) });
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(await content()).toEqual(made);
  expect(await ensure()).toEqual(made);
  const owner = await new ApiKeys(open.store, log).verify(made.api_key);
  expect(made.team_id).toBe(`team-${owner.teamId}`);
});

test("a server that moved is found at its new address with the same key", async () => {
  const made = await ensure();
  expect(await ensure("http://127.0.0.1:9999")).toEqual({ ...made, url: "http://127.0.0.1:9999" });
  expect(await content()).toMatchObject({ url: "http://127.0.0.1:9999" });
});

test("a key of another database, a revoked one and a damaged file are replaced, for the same team", async () => {
  const first = await ensure();
  await open.store.updateTable("api_keys").set({ revoked_at: new Date() }).execute();
  const second = await ensure();
  expect(second.api_key).not.toBe(first.api_key);
  expect(second.team_id).toBe(first.team_id);
  await writeFile(file, "{ half");
  const third = await ensure();
  expect(third.api_key).not.toBe(second.api_key);
  const other = await newDatabase();
  const fourth = await ensure(url, other);
  await other.close();
  expect(fourth.api_key).not.toBe(third.api_key);
  expect(await content()).toEqual(fourth);
});

test("replicas that start at once agree on one key", async () => {
  const made = await Promise.all(Array.from({ length: 5 }, async () => ensure()));
  expect(new Set(made.map(({ api_key }) => api_key)).size).toBe(1);
  expect(await content()).toEqual(made[0]);
});
