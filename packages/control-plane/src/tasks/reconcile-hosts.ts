/**
 * Compares what should be with what every host has, and mends the difference. Takes no input and may run at any moment
 * beside any operation: each change is a compare-and-set against a row read before the host was asked, so that whatever
 * moved meanwhile is left for the next round. A host that does not answer keeps its sandboxes as they are.
 */
import { intervals, parseUuid, WrennError } from "@wrenn/contract";
import type { hostAgentProto, SandboxId, SandboxStatus } from "@wrenn/contract";
import type { Logger } from "pino";
import type pg from "pg";
import type { HostClient, HostClients } from "../hosts/host-client.ts";
import { refreshHost } from "../services/hosts.ts";
import type { HeldBack } from "../services/held-back.ts";
import { toRunning } from "../services/operations.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import type { Snapshots } from "../services/snapshots.ts";
import { advisoryLocks, tryWithAdvisoryLock } from "../store/advisory-lock.ts";
import { changeStatus } from "../store/change-status.ts";
import type { StatusChange, StatusReason } from "../store/change-status.ts";
import type { Store } from "../store/database.ts";
import { listHosts, recordSilence } from "../store/hosts.ts";
import { recordRecoverable, sandboxesResident, statusesOf } from "../store/sandboxes.ts";
import type { HostRow } from "../store/schema.ts";
import { mayBeLost, planReconciliation } from "./reconciliation-plan.ts";
import type { Action } from "./reconciliation-plan.ts";
import { SnapshotReconciler } from "./reconcile-snapshots.ts";
import { Sightings } from "./sightings.ts";
import { planForSilence } from "./silence-plan.ts";

export interface ReconcilerOptions {
  readonly store: Store;
  readonly pool: pg.Pool;
  readonly clients: HostClients;
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  readonly heldBack: HeldBack;
  /** An operator has decided that what hosts have is to be made what the database says, whatever is lost by it. */
  readonly trustDatabase: boolean;
  readonly log: Logger;
  readonly onChange: (id: SandboxId, status?: SandboxStatus) => void;
  /** Told of every look at a host: what it said of itself, or null when it did not answer. */
  readonly onLook?: (host: HostRow, facts: hostAgentProto.GetHostResponse | null) => void;
  readonly intervalMs?: number;
  readonly hostSilenceMs?: number;
}

/** So few may be lost at once, whatever share of a host's sandboxes they are, and are given up as any one is. */
const fewestHeldBack = 3;

type Row = Awaited<ReturnType<typeof sandboxesResident>>[number];

export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #minAgeMs: number;
  readonly #silenceMs: number;
  readonly #sightings = new Map<string, Sightings>();
  readonly #snapshots: SnapshotReconciler;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#minAgeMs = (options.intervalMs ?? intervals.reconcile) / 2;
    this.#silenceMs = options.hostSilenceMs ?? intervals.hostSilence;
    this.#snapshots = new SnapshotReconciler(options);
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
    const rows = await sandboxesResident(store, host.id);
    let held: hostAgentProto.Sandbox[];
    try {
      const facts = await refreshHost(store, client, host);
      this.#options.onLook?.(host, facts);
      held = await client.listSandboxes();
    } catch (error) {
      return this.#recordSilence({ host, rows, client }, error, signal);
    }
    if (host.contact_lost_at !== null) this.#options.log.info({ hostId: host.id }, "a host agent answers again");
    const sightings = this.#sightingsOf(host);
    const actions = planReconciliation(rows, held, sightings);
    await this.#applyAll(this.#guarded(host, rows, held, actions), client, signal);
    await this.#removeOrphans(actions, host, client, signal);
    try {
      await this.#snapshots.reconcile({ host, client, held, sightings, signal });
    } finally {
      sightings.endLook();
    }
  }

  /**
   * A host that has lost most of what it should have is more likely another one, or another directory of it, than a host that has lost
   * it: its sandboxes are `missing` until it has them again, or an operator has decided that they are lost.
   */
  #guarded(
    host: HostRow,
    rows: readonly Row[],
    held: readonly hostAgentProto.Sandbox[],
    actions: readonly Action<Row>[],
  ): Action<Row>[] {
    const ids = new Set(held.map(({ sandboxId }) => sandboxId));
    // Counted on this look, whether or not each has been missed before: they need not have come to be at the same time.
    const absent = rows.filter((row) => !ids.has(row.id) && mayBeLost(row));
    const present = rows.filter(({ id }) => ids.has(id)).length;
    const isHeldBack = !this.#options.trustDatabase && absent.length >= fewestHeldBack && absent.length > present;
    const wouldBeLost = actions.some((action) => action.do === "mark_lost");
    this.#options.heldBack.note("lost_sandboxes", host.id, isHeldBack && wouldBeLost ? absent.map(({ id }) => id) : []);
    return actions.flatMap((action) => {
      if (action.do !== "mark_lost" || !isHeldBack) return [action];
      return action.row.status === "running" ? [{ do: "mark_missing", row: action.row, reason: mostLost }] : [];
    });
  }

  async #recordSilence(
    { host, rows, client }: { host: HostRow; rows: readonly Row[]; client: HostClient },
    error: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, log } = this.#options;
    if (!(error instanceof WrennError)) throw error;
    if (error.code === "database_unavailable") throw error;
    this.#options.onLook?.(host, null);
    if (host.contact_lost_at === null) log.warn({ hostId: host.id, err: error }, "a host agent does not answer");
    if (!(await recordSilence(store, host.id, this.#silenceMs))) return;
    if (host.status === "online") log.error({ hostId: host.id }, "a host is unreachable; its sandboxes are missing");
    await this.#applyAll(planForSilence(rows), client, signal);
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
          this.#options.onChange(action.row.id, action.do === "mark_paused" ? "paused" : undefined);
        }
      }),
    );
  }

  async #apply(action: Exclude<Action<Row>, { do: "remove_orphan" }>, client: HostClient): Promise<void> {
    const { store, sandboxes, log } = this.#options;
    const { row } = action;
    switch (action.do) {
      case "mark_running": {
        const { held, reason } = action;
        const startedAt = row.started_at ?? new Date();
        return this.#change({ from: row, ...toRunning(held), startedAt, reason }, "a sandbox runs after all");
      }
      case "mark_paused":
        return this.#change({ from: row, to: "paused", reason: action.reason }, "a sandbox is paused after all");
      case "mark_dead": {
        const { reason, recoverable } = action;
        const startedAt = row.started_at ?? new Date();
        return this.#change({ from: row, to: "error", reason, recoverable, startedAt }, "a sandbox died");
      }
      case "mark_failed":
        return this.#change({ from: row, to: "error", reason: action.reason }, "a creation was cut short");
      case "mark_lost":
        if (row.status === "error") return recordRecoverable(store, row, []);
        return this.#change({ from: row, to: "error", reason: lost }, "a sandbox is lost");
      case "mark_missing":
        return this.#change({ from: row, to: "missing", reason: action.reason }, "a sandbox is missing");
      case "note_recoverable":
        return recordRecoverable(store, row, action.recoverable);
      case "revive":
        return this.#change({ from: row, to: action.to, deadlineMs: 0 }, "a sandbox is there after all");
      case "remove_remains":
        return client.ensureDestroyed(row.id);
      case "finish_destroy":
        await sandboxes.finishDestroy(row);
        log.info({ sandboxId: row.id }, "completed a destroy");
    }
  }

  async #change(change: StatusChange & { readonly from: Row }, what: string): Promise<void> {
    const { store, log } = this.#options;
    if ((await changeStatus(store, change)) === null) return;
    const about = { sandboxId: change.from.id, was: change.from.status, reason: change.reason ?? undefined };
    if (change.to === "error" || change.to === "missing") log.error(about, what);
    else log.info(about, what);
  }

  /**
   * Destroys what no row expects. The database is asked once more right before. Rows are made before a host is asked for anything and
   * stay for ever, so what has none belongs to another database, or to a later state of this one: it is reported and not touched.
   */
  async #removeOrphans(
    actions: readonly Action<Row>[],
    host: HostRow,
    client: HostClient,
    signal: AbortSignal,
  ): Promise<void> {
    const { store, log, heldBack, trustDatabase } = this.#options;
    const ids = actions.flatMap((action) => (action.do === "remove_orphan" ? [parseUuid("sandbox", action.id)] : []));
    const known = await statusesOf(store, ids);
    const unknown = trustDatabase ? [] : ids.filter((id) => !known.has(id));
    heldBack.note("unknown_sandboxes", host.id, unknown);
    for (const id of ids) {
      if (signal.aborted) return;
      const row = known.get(id);
      if (unknown.includes(id) || (row?.hostId === host.id && row.isResident)) continue;
      try {
        await client.ensureDestroyed(id);
        log.warn({ sandboxId: id, hostId: host.id }, "destroyed a sandbox that should not exist");
      } catch (error) {
        log.error({ sandboxId: id, hostId: host.id, err: error }, "could not destroy a sandbox that should not exist");
      }
    }
  }

  #sightingsOf(host: HostRow): Sightings {
    const known = this.#sightings.get(host.id) ?? new Sightings(this.#minAgeMs);
    this.#sightings.set(host.id, known);
    return known;
  }
}

const lost: StatusReason = { code: "vm_died", message: "The host no longer has the sandbox." };

const mostLost: StatusReason = {
  code: "host_unavailable",
  message: "The host has neither this sandbox nor most others that it should have; an operator has to decide.",
};
