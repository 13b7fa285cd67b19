/** The connection pool, and what its failures mean: a database that is away is `database_unavailable`, never a hang. */
import { deadlines, WrennError } from "@wrenn/contract";
import { Kysely, PostgresDialect, sql } from "kysely";
import type { PostgresPool, RawBuilder } from "kysely";
import pg from "pg";
import type { Database } from "./schema.ts";

/** The database or a transaction in it. */
export type Store = Kysely<Database>;

export interface OpenDatabase {
  readonly store: Store;
  readonly pool: pg.Pool;
  close(): Promise<void>;
}

/** bigint columns and sums here stay far below 2^53, so they are read as numbers instead of pg's strings. */
const types: pg.CustomTypesConfig = {
  getTypeParser(oid: Parameters<typeof pg.types.getTypeParser>[0], format?: string) {
    return oid === pg.types.builtins.INT8
      ? Number
      : pg.types.getTypeParser(oid, format === "binary" ? "binary" : "text");
  },
};

/** Opens no connection yet. `onIdleError` hears of connections that broke while nothing used them. */
export function openDatabase(url: string, onIdleError: (error: Error) => void): OpenDatabase {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: "wrenn-control-plane",
    max: 16,
    connectionTimeoutMillis: deadlines.databaseConnect,
    idleTimeoutMillis: 60_000,
    statement_timeout: deadlines.databaseStatement,
    // Covers what the server's own statement_timeout cannot: a server that went away without closing the connection.
    query_timeout: deadlines.databaseStatement + deadlines.databaseConnect,
    keepAlive: true,
    types,
  });
  pool.on("error", onIdleError);
  // A connection that breaks while it is lent out emits an error of its own, besides failing the query it runs.
  pool.on("connect", (client) => {
    client.on("error", () => undefined);
  });
  const store = new Kysely<Database>({ dialect: new PostgresDialect({ pool: translateFailures(pool) }) });
  return { store, pool, close: async () => store.destroy() };
}

/** Errors of pg, told apart by where they come from: the server's have an SQLSTATE, all others are the connection's. */
export function asDatabaseError(error: unknown): unknown {
  if (error instanceof WrennError) return error;
  if (error instanceof pg.DatabaseError && !isServerGoing(error.code ?? "")) return error;
  return new WrennError("database_unavailable", { cause: error });
}

export function isDatabaseAway(error: unknown): boolean {
  return error instanceof WrennError && error.code === "database_unavailable";
}

/** SQLSTATE classes: 08 connection, 53 resources, 57 operator (57014 is a cancelled statement, such as one too slow). */
function isServerGoing(sqlState: string): boolean {
  return sqlState.startsWith("08") || sqlState.startsWith("53") || sqlState.startsWith("57");
}

function translateFailures(pool: pg.Pool): PostgresPool {
  return {
    async connect() {
      const client = await pool.connect().catch((error: unknown) => {
        throw asDatabaseError(error);
      });
      let broken = false;
      return {
        query: (async (sql: string, parameters: unknown[]) => {
          try {
            return await client.query(sql, parameters);
          } catch (error) {
            const translated = asDatabaseError(error);
            if (translated instanceof WrennError) broken = true;
            throw translated;
          }
        }) as never,
        // A connection on which anything but a statement failed is not lent out again.
        release: () => {
          client.release(broken);
        },
      };
    },
    async end() {
      await pool.end();
    },
  };
}

/** A time from now, by the database's clock, which all replicas share. */
export function timeIn(milliseconds: number): RawBuilder<Date> {
  return sql<Date>`now() + ${milliseconds} * interval '1 millisecond'`;
}
