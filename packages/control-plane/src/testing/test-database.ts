/** Databases for tests, in a real PostgreSQL: the one that a run of the tests shares, where it does, or one of its own. */
import { randomBytes } from "node:crypto";
import pg from "pg";
import { sharedPostgresPort } from "./shared-postgres.ts";
import { TestPostgres } from "./test-postgres.ts";

export class TestDatabase {
  readonly #port: number;
  /** Null when others use the server. */
  readonly #own: TestPostgres | null;
  readonly #made: string[] = [];

  private constructor(port: number, own: TestPostgres | null) {
    this.#port = port;
    this.#own = own;
  }

  /** With a server of its own, for who wants to stop it; otherwise, where there is none to share. */
  static async start({ own = false }: { own?: boolean } = {}): Promise<TestDatabase> {
    const port = own ? null : await sharedPostgresPort();
    if (port !== null) return new TestDatabase(port, null);
    const postgres = await TestPostgres.start();
    return new TestDatabase(postgres.port, postgres);
  }

  /** An empty database, as a connection string. */
  async create(): Promise<string> {
    const name = `wrenn_${randomBytes(6).toString("hex")}`;
    await this.#command(`CREATE DATABASE ${name}`);
    this.#made.push(name);
    return this.#url(name);
  }

  /** Stops the server, as a crash or an upgrade would, and breaks every connection. */
  async pause(): Promise<void> {
    await this.#ownServer().pause();
  }

  async resume(): Promise<void> {
    await this.#ownServer().resume();
  }

  async stop(): Promise<void> {
    if (this.#own === null) for (const name of this.#made) await this.#command(`DROP DATABASE ${name} WITH (FORCE)`);
    else await this.#own.stop();
  }

  #ownServer(): TestPostgres {
    if (this.#own === null) throw new Error("others use this server: a test that stops it needs one of its own");
    return this.#own;
  }

  #url(name: string): string {
    return `postgres://postgres:postgres@127.0.0.1:${this.#port}/${name}`;
  }

  async #command(sql: string): Promise<void> {
    const client = new pg.Client({ connectionString: this.#url("postgres") });
    await client.connect();
    try {
      await client.query(sql);
    } finally {
      await client.end();
    }
  }
}
