/**
 * Compares what should be with what every host has, and mends the difference. Takes no input and may run at any moment
 * beside any operation: each change is a compare-and-set against a row read before the host was asked, so that whatever
 * moved meanwhile is left for the next round. A host that does not answer keeps its sandboxes as they are.
 */
import { intervals, parseUuid, WrennError } from "@wrenn/contract";
import type { hostAgentProto, SandboxId } from "@wrenn/contract";
import type { Logger } from "pino";
import type pg from "pg";
import type { HostClient, HostClients } from "../hosts/host-client.ts";
import { refreshHost } from "../services/hosts.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import { advisoryLocks, tryWithAdvisoryLock } from "../store/advisory-lock.ts";
import { changeStatus } from "../store/change-status.ts";
import type { Store } from "../store/database.ts";
import { listHosts, recordSilence } from "../store/hosts.ts";
import { sandboxesOccupying, statusesOf } from "../store/sandboxes.ts";
import type { HostRow } from "../store/schema.ts";
import { planReconciliation } from "./reconciliation-plan.ts";
import type { Action } from "./reconciliation-plan.ts";
import { Sightings } from "./sightings.ts";

export interface ReconcilerOptions {
  readonly store: Store;
  readonly pool: pg.Pool;
  readonly clients: HostClients;
  readonly sandboxes: Sandboxes;
  readonly log: Logger;
  readonly onChange: (id: SandboxId) => void;
  /** Told of every look at a host: what it said of itself, or null when it did not answer. */
  readonly onLook?: (host: HostRow, facts: hostAgentProto.GetHostResponse | null) => void;
  readonly intervalMs?: number;
  readonly hostSilenceMs?: number;
}

type Row = Awaited<ReturnType<typeof sandboxesOccupying>>[number];

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #minAgeMs: number;
  readonly #silenceMs: number;
  readonly #sightings = new Map<string, Sightings>();
  /** Sandboxes of other databases, by host, so that each is reported once. */
  readonly #foreign = new Map<string, string>();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#minAgeMs = (options.intervalMs ?? intervals.reconcile) / 2;
    this.#silenceMs = options.hostSilenceMs ?? intervals.hostSilence;
  }

  /** One round over all hosts, unless another replica is at it. */
  async run(signal: AbortSignal): Promise<void> {
    const { store, pool, log } = this.#options;
    await tryWithAdvisoryLock(pool, advisoryLocks.reconcile, signal, async () => {
      const hosts = await listHosts(store);
      await Promise.all(
        hosts.map(async (host) => {
          try {
            await this.#reconcile(host, signal);
          } catch (error) {
            log.error({ hostId: host.id, err: error }, "could not reconcile a host");
          }
        }),
      );
    });
  }

  async #reconcile(host: HostRow, signal: AbortSignal): Promise<void> {
    const { store, clients } = this.#options;
    const client = clients.get(host.address);
    const rows = await sandboxesOccupying(store, host.id);
    let held: hostAgentProto.Sandbox[];
    try {
      const facts = await refreshHost(store, client, host);
      this.#options.onLook?.(host, facts);
      held = await client.listSandboxes();
    } catch (error) {
      return this.#recordSilence(host, rows, error);
    }
    if (host.contact_lost_at !== null) this.#options.log.info({ hostId: host.id }, "a host agent answers again");
    const sightings = this.#sightingsOf(host);
    const actions = planReconciliation(rows, held, sightings);
    sightings.endLook();
    await this.#applyAll(actions, client, signal);
    await this.#removeOrphans(actions, host, held, client, signal);
  }

  async #recordSilence(host: HostRow, rows: readonly Row[], error: unknown): Promise<void> {
    const { store, log } = this.#options;
    if (!(error instanceof WrennError)) throw error;
    if (error.code === "database_unavailable") throw error;
    this.#options.onLook?.(host, null);
    if (host.contact_lost_at === null) log.warn({ hostId: host.id, err: error }, "a host agent does not answer");
    if (!(await recordSilence(store, host.id, this.#silenceMs))) return;
    if (host.status === "online") log.error({ hostId: host.id }, "a host is unreachable; its sandboxes are missing");
    const reason = { code: "host_unavailable", message: "The sandbox's host does not answer." };
    for (const row of rows.filter(({ status }) => status === "running")) {
      await changeStatus(store, { from: row, to: "missing", reason });
      this.#options.onChange(row.id);
    }
  }

  async #applyAll(actions: readonly Action<Row>[], client: HostClient, signal: AbortSignal): Promise<void> {
    await Promise.all(
      actions.map(async (action) => {
        if (action.do === "remove_orphan" || signal.aborted) return;
        try {
          await this.#apply(action, client);
        } catch (error) {
          this.#options.log.error({ sandboxId: action.row.id, action: action.do, err: error }, "could not reconcile");
        } finally {
          this.#options.onChange(action.row.id);
        }
      }),
    );
  }

  async #apply(action: Exclude<Action<Row>, { do: "remove_orphan" }>, client: HostClient): Promise<void> {
    const { store, sandboxes, log } = this.#options;
    const { row } = action;
    switch (action.do) {
      case "mark_running": {
        const startedAt = row.started_at ?? new Date();
        const changed = await changeStatus(store, { from: row, to: "running", engine: action.engine, startedAt });
        if (changed !== null) log.info({ sandboxId: row.id, was: row.status }, "a sandbox runs after all");
        return;
      }
      case "mark_error": {
        const changed = await changeStatus(store, { from: row, to: "error", reason: action.reason });
        if (changed === null) return;
        log.error({ sandboxId: row.id, was: row.status, reason: action.reason }, "a sandbox died");
        if (action.tombstone) await client.ensureDestroyed(row.id);
        return;
      }
      case "finish_destroy":
        await sandboxes.finishDestroy(row);
        log.info({ sandboxId: row.id }, "completed a destroy");
    }
  }

  /**
   * Destroys what no row expects. The database is asked once more right before. A sandbox that it has never heard of and
   * that is older than its acquaintance with the host belongs to another database, such as the one that this one
   * replaced: it is reported and never touched.
   */
  async #removeOrphans(
    actions: readonly Action<Row>[],
    host: HostRow,
    held: readonly hostAgentProto.Sandbox[],
    client: HostClient,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, log } = this.#options;
    const ids = actions.flatMap((action) => (action.do === "remove_orphan" ? [parseUuid("sandbox", action.id)] : []));
    const known = await statusesOf(store, ids);
    const foreign: SandboxId[] = [];
    for (const id of ids) {
      if (signal.aborted) return;
      const row = known.get(id);
      if (row?.hostId === host.id && row.occupies) continue;
      const sandbox = held.find(({ sandboxId }) => sandboxId === id);
      if (row === undefined && bornBefore(sandbox, host.created_at)) {
        foreign.push(id);
        continue;
      }
      try {
        await client.ensureDestroyed(id);
        log.warn({ sandboxId: id, hostId: host.id }, "destroyed a sandbox that should not exist");
      } catch (error) {
        log.error({ sandboxId: id, hostId: host.id, err: error }, "could not destroy a sandbox that should not exist");
      }
    }
    this.#reportForeign(host, foreign);
  }

  #reportForeign(host: HostRow, foreign: readonly SandboxId[]): void {
    const report = foreign.toSorted().join(" ");
    if (report === (this.#foreign.get(host.id) ?? "")) return;
    this.#foreign.set(host.id, report);
    if (foreign.length === 0) return;
    this.#options.log.error(
      { hostId: host.id, sandboxIds: foreign },
      "the host holds sandboxes that this database has never heard of and that are older than it: refusing to touch " +
        "them. Start Wrenn with the database they belong to, or end them on the host",
    );
  }

  #sightingsOf(host: HostRow): Sightings {
    const known = this.#sightings.get(host.id) ?? new Sightings(this.#minAgeMs);
    this.#sightings.set(host.id, known);
    return known;
  }
}

/** A sandbox that does not say when it was made counts as older: in doubt nothing is destroyed. */
function bornBefore(sandbox: hostAgentProto.Sandbox | undefined, time: Date): boolean {
  const created = sandbox?.createdAt;
  return created === undefined || Number(created.seconds) * 1000 + created.nanos / 1e6 < time.getTime();
}
