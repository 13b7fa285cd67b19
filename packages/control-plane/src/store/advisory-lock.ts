/** PostgreSQL's advisory locks: how replicas agree which of them does something. */
import type pg from "pg";
import { asDatabaseError } from "./database.ts";

/** One number per purpose. They share PostgreSQL's 64-bit space with other programs, so all begin with "wrenn" in ASCII. */
export const advisoryLocks = {
  migrations: "8607053362824740865",
  reconcile: "8607053362824740866",
  localCredentials: "8607053362824740867",
} as const;

/**
 * Runs the work while this session holds the lock, or answers false if another session holds it. The lock ends with
 * the connection, so work that is stuck never holds other replicas up: aborting the signal drops the connection.
 */
export async function tryWithAdvisoryLock(
  pool: pg.Pool,
  lock: string,
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<boolean> {
  const client = await pool.connect().catch((error: unknown) => {
    throw asDatabaseError(error);
  });
  let released = false;
  const release = (destroy: boolean): void => {
    if (released) return;
    released = true;
    client.release(destroy);
  };
  const query = async (sql: string): Promise<boolean> => {
    try {
      const { rows } = await client.query<{ answer: boolean }>(sql, [lock]);
      return rows[0]?.answer === true;
    } catch (error) {
      release(true);
      throw asDatabaseError(error);
    }
  };
  const drop = (): void => {
    release(true);
  };
  signal.addEventListener("abort", drop, { once: true });
  try {
    if (!(await query("SELECT pg_try_advisory_lock($1::bigint) AS answer"))) return false;
    try {
      await work();
    } finally {
      if (!released) await query("SELECT pg_advisory_unlock($1::bigint) AS answer");
    }
    return true;
  } finally {
    signal.removeEventListener("abort", drop);
    release(false);
  }
}
