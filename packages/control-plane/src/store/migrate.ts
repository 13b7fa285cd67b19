/** Brings a database to this version's schema: plain SQL files in order, each once, each in a transaction. */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { deadlines, WrennError } from "@wrenn/contract";
import pg from "pg";
import { asDatabaseError } from "./database.ts";
import { advisoryLocks } from "./advisory-lock.ts";

export interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

const fileName = /^(\d{4})_([a-z0-9_]+)\.sql$/;
const shippedDirectory = fileURLToPath(new URL("../../migrations/", import.meta.url));

/** The migrations that belong to this version of Wrenn, in order. */
export async function readMigrations(directory: string = shippedDirectory): Promise<Migration[]> {
  const migrations: Migration[] = [];
  for (const file of (await readdir(directory)).sort()) {
    const [, version, name] = fileName.exec(file) ?? [];
    if (version === undefined || name === undefined) continue;
    const sql = await readFile(`${directory}/${file}`, "utf8");
    migrations.push({ version: Number(version), name, sql, checksum: createHash("sha256").update(sql).digest("hex") });
  }
  return migrations;
}

/**
 * Applies what is missing and returns the versions applied. Replicas that start together take turns.
 * @throws WrennError `database_incompatible` when the database has migrations that this version does not know, or knows otherwise.
 */
export async function migrate(url: string, migrations: readonly Migration[]): Promise<number[]> {
  const client = new pg.Client({
    connectionString: url,
    application_name: "wrenn-migrations",
    connectionTimeoutMillis: deadlines.databaseConnect,
    lock_timeout: deadlines.serverStart,
  });
  client.on("error", () => undefined);
  try {
    await client.connect();
    // Held by the session, so that it ends with this process, however that ends.
    await client.query("SELECT pg_advisory_lock($1::bigint)", [advisoryLocks.migrations]);
    await client.query(`CREATE TABLE IF NOT EXISTS schema_migrations (
      version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
    )`);
    const applied = await appliedVersions(client, migrations);
    const missing = migrations.filter(({ version }) => !applied.has(version));
    for (const migration of missing) await apply(client, migration);
    return missing.map(({ version }) => version);
  } catch (error) {
    throw asDatabaseError(error);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function appliedVersions(client: pg.Client, migrations: readonly Migration[]): Promise<Set<number>> {
  const { rows } = await client.query<{ version: number; name: string; checksum: string }>(
    "SELECT version, name, checksum FROM schema_migrations ORDER BY version",
  );
  const known = new Map(migrations.map((migration) => [migration.version, migration]));
  for (const row of rows) {
    const migration = known.get(row.version);
    const label = `${String(row.version).padStart(4, "0")}_${row.name}`;
    if (migration === undefined) {
      throw new WrennError("database_incompatible", {
        message: `The database has migration ${label}, which this version of Wrenn does not know: it is newer.`,
        details: { migration: label },
      });
    }
    if (migration.checksum !== row.checksum) {
      throw new WrennError("database_incompatible", {
        message: `Migration ${label} was changed after it had been applied to this database.`,
        suggestion: "Put the file back as it was and make the change in a new migration.",
        details: { migration: label },
      });
    }
  }
  return new Set(rows.map((row) => row.version));
}

async function apply(client: pg.Client, migration: Migration): Promise<void> {
  await client.query("BEGIN");
  try {
    await client.query(migration.sql);
    await client.query("INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)", [
      migration.version,
      migration.name,
      migration.checksum,
    ]);
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
}
