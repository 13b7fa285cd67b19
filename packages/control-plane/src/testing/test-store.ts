/** The tables of an empty database with one large host, for tests of the store alone: no server works on them. */
import { minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import { openDatabase } from "../store/database.ts";
import type { OpenDatabase, Store } from "../store/database.ts";
import { ensureHost, recordContact } from "../store/hosts.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import { reserveSandbox } from "../store/reservations.ts";
import type { HostFacts } from "../store/hosts.ts";
import type { HostRow, SandboxRow } from "../store/schema.ts";
import type { TestDatabase } from "./test-database.ts";

const largeHost: HostFacts = {
  cpu_count: 64,
  memory_mib: 100_000,
  agent_version: "0",
  engine: "qemu-tcg",
  engine_version: null,
  engine_reason: null,
  cpu: null,
  disk_format: null,
  disk_reason: null,
  disk_formats: [],
  memory_backends: [],
};

export class TestStore {
  readonly store: Store;
  readonly #open: OpenDatabase;
  readonly #host: HostRow;

  private constructor(open: OpenDatabase, host: HostRow) {
    this.store = open.store;
    this.#open = open;
    this.#host = host;
  }

  static async open(database: TestDatabase): Promise<TestStore> {
    const url = await database.create();
    await migrate(url, await readMigrations());
    const open = openDatabase(url, () => undefined);
    const host = await ensureHost(open.store, { name: "test", address: "unix:/nowhere" });
    await recordContact(open.store, host.id, largeHost);
    return new TestStore(open, host);
  }

  async close(): Promise<void> {
    await this.#open.close();
  }

  /** One of the platform's team that has just been reserved. */
  async startingSandbox(timeoutSeconds: number | null = null): Promise<SandboxRow> {
    const row = await reserveSandbox(this.store, this.#host.id, {
      id: newId("sandbox"),
      teamId: platformTeamId,
      templateId: minimalTemplateId,
      templateTeamId: platformTeamId,
      vcpus: 1,
      memoryMib: 512,
      diskMib: 5120,
      metadata: {},
      timeoutSeconds,
      onTimeout: "destroy",
      deadlineMs: 60_000,
    });
    if (row === null) throw new Error("no room");
    return row;
  }
}
