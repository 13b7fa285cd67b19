import pg from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TestDatabase } from "../testing/test-database.ts";
import { migrate, readMigrations } from "./migrate.ts";
import type { Migration } from "./migrate.ts";

let database: TestDatabase;

beforeAll(async () => {
  database = await TestDatabase.start();
});
afterAll(async () => database.stop());

async function query(url: string, sql: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql, values)).rows;
  } finally {
    await client.end();
  }
}

async function shipped(): Promise<Migration[]> {
  const migrations = await readMigrations();
  expect(migrations.map(({ version }) => version)).toEqual(migrations.map((_, at) => at + 1));
  return migrations;
}

test("a new database gets every migration, and a second run none", async () => {
  const url = await database.create();
  const migrations = await shipped();
  expect(await migrate(url, migrations)).toEqual(migrations.map(({ version }) => version));
  expect(await migrate(url, migrations)).toEqual([]);
});

test("replicas that start at once migrate once", async () => {
  const url = await database.create();
  const migrations = await shipped();
  const applied = await Promise.all(Array.from({ length: 4 }, async () => migrate(url, migrations)));
  expect(applied.flat().sort((a, b) => a - b)).toEqual(migrations.map(({ version }) => version));
});

test("the platform team and the template minimal are there, with the zero UUID", async () => {
  const url = await database.create();
  await migrate(url, await shipped());
  const zero = "00000000-0000-0000-0000-000000000000";
  expect(await query(url, "SELECT id FROM teams")).toEqual([{ id: zero }]);
  expect(await query(url, "SELECT id, team_id, name, type FROM templates")).toEqual([
    { id: zero, team_id: zero, name: "minimal", type: "base" },
  ]);
});

test("the name of a platform template is nobody else's, in either order", async () => {
  const url = await database.create();
  await migrate(url, await shipped());
  const [team] = await query(url, "INSERT INTO teams (id, name) VALUES (gen_random_uuid(), 'mine') RETURNING id");
  const insert = async (owner: unknown, name: string): Promise<unknown> =>
    query(
      url,
      "INSERT INTO templates (id, team_id, name, type, disk_mib) VALUES (gen_random_uuid(), $1, $2, 'base', 5120)",
      [owner, name],
    );
  await expect(insert(team?.["id"], "minimal")).rejects.toThrow("reserved");
  await insert(team?.["id"], "mine");
  await expect(insert("00000000-0000-0000-0000-000000000000", "mine")).rejects.toThrow("reserved");
});

test("the name of a template that was deleted is free, for the platform too, and its row stays", async () => {
  const url = await database.create();
  await migrate(url, await shipped());
  const [team] = await query(url, "INSERT INTO teams (id, name) VALUES (gen_random_uuid(), 'mine') RETURNING id");
  const insert = async (owner: unknown, status: string): Promise<unknown> =>
    query(
      url,
      `INSERT INTO templates (id, team_id, name, type, disk_mib, status, deleted_at)
       VALUES (gen_random_uuid(), $1, 'again', 'base', 5120, $2, CASE WHEN $2 = 'deleted' THEN now() END)`,
      [owner, status],
    );
  await insert(team?.["id"], "deleted");
  await insert(team?.["id"], "deleted");
  await insert("00000000-0000-0000-0000-000000000000", "ready");
  await expect(insert(team?.["id"], "ready")).rejects.toThrow("reserved");
  expect(await query(url, "SELECT FROM templates WHERE name = 'again'")).toHaveLength(3);
});

test("sandboxes of before keep what happens when nobody uses them", async () => {
  const url = await database.create();
  const migrations = await shipped();
  await migrate(url, migrations.slice(0, 3));
  const zero = "00000000-0000-0000-0000-000000000000";
  const insert = async (): Promise<unknown> =>
    query(
      url,
      `INSERT INTO sandboxes (id, team_id, template_id, template_team_id, status, vcpus, memory_mib, disk_mib)
       VALUES (gen_random_uuid(), $1, $1, $1, 'running', 1, 512, 5120)`,
      [zero],
    );
  await insert();
  await migrate(url, migrations);
  await insert();
  expect(await query(url, "SELECT on_timeout FROM sandboxes ORDER BY created_at")).toEqual([
    { on_timeout: "destroy" },
    { on_timeout: "pause" },
  ]);
});

test("a database of a newer version is refused", async () => {
  const url = await database.create();
  const migrations = await shipped();
  const newer = { version: 9999, name: "from_the_future", sql: "SELECT 1", checksum: "0" };
  await migrate(url, [...migrations, newer]);
  await expect(migrate(url, migrations)).rejects.toMatchObject({
    code: "database_incompatible",
    details: { migration: "9999_from_the_future" },
  });
});

test("a migration that was changed after it had been applied is refused", async () => {
  const url = await database.create();
  const migrations = await shipped();
  await migrate(url, migrations);
  const changed = migrations.map((migration) => ({ ...migration, checksum: "changed" }));
  await expect(migrate(url, changed)).rejects.toMatchObject({ code: "database_incompatible" });
});

test("a migration that fails leaves nothing of itself", async () => {
  const url = await database.create();
  const failing = { version: 1, name: "half", sql: "CREATE TABLE half (); SELECT no_such_function()", checksum: "0" };
  await expect(migrate(url, [failing])).rejects.toThrow("no_such_function");
  expect(await query(url, "SELECT to_regclass('half') AS half")).toEqual([{ half: null }]);
  expect(await query(url, "SELECT * FROM schema_migrations")).toEqual([]);
});
