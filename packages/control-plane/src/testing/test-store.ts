/** The tables of an empty database with one large host, for tests of the store alone: no server works on them. */
import { minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import { openDatabase } from "../store/database.ts";
import type { OpenDatabase, Store } from "../store/database.ts";
import { ensureHost, recordContact } from "../store/hosts.ts";
import { migrate, readMigrations } from "../store/migrate.ts";
import { reserveSandbox } from "../store/reservations.ts";
import type { HostRow, SandboxRow } from "../store/schema.ts";
import type { TestDatabase } from "./test-database.ts";

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
    const facts = { cpuCount: 64, memoryMib: 100_000, agentVersion: "0", engine: "qemu-tcg" };
    await recordContact(open.store, host.id, facts);
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
