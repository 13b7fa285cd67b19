/**
 * What may be done with sandboxes that takes nothing but their rows, and their end. What hosts do with them is in the files beside this,
 * one for each operation.
 */
import { assertName, can, deadlines, sandboxStatuses, WrennError } from "@wrenn/contract";
import type { ListSandboxesQuery, SandboxId, SandboxStatus, TeamId, UpdateSandbox } from "@wrenn/contract";
import { idleForTooLong } from "../store/activity.ts";
import type { IdleSandbox } from "../store/activity.ts";
import { changeStatus } from "../store/change-status.ts";
import { findHost } from "../store/hosts.ts";
import { expireDeadline, listSandboxes, updateSandbox } from "../store/sandboxes.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import type { SandboxRow } from "../store/schema.ts";
import { maxAttempts } from "./operations.ts";
import type { Operations, SandboxServices } from "./operations.ts";
import type { SandboxTargets } from "./sandbox-targets.ts";

export class Sandboxes {
  readonly #with: SandboxServices;
  readonly #operations: Operations;
  readonly #targets: SandboxTargets;

  constructor(services: SandboxServices, operations: Operations, targets: SandboxTargets) {
    this.#with = services;
    this.#operations = operations;
    this.#targets = targets;
  }

  /** @throws WrennError `sandbox_not_found`, also for another team's. */
  async get(teamId: TeamId, id: SandboxId): Promise<NamedSandboxRow> {
    return this.#operations.get(teamId, id);
  }

  /**
   * Counts as use, so a new timeout begins now.
   * @throws WrennError `sandbox_not_found`, also for another team's; `sandbox_state_conflict` when it has come to its end.
   */
  async update(teamId: TeamId, id: SandboxId, change: UpdateSandbox): Promise<NamedSandboxRow> {
    const row = await updateSandbox(this.#with.store, teamId, id, change);
    if (row !== null) return row;
    const { status } = await this.get(teamId, id);
    throw new WrennError("sandbox_state_conflict", {
      message: `The sandbox is ${status}, so nothing of it can be changed.`,
      details: { status },
    });
  }

  /**
   * Counts as use and does nothing else; works while the database is away, too.
   * @throws WrennError `sandbox_not_found`, also for another team's; `sandbox_state_conflict` when it does not run.
   */
  async ping(teamId: TeamId, id: SandboxId): Promise<void> {
    await this.#targets.findReachable(teamId, id);
    this.#with.activity.touch(id);
  }

  /** When the sandbox will have been idle for too long, as far as this replica knows. */
  expiryOf(row: SandboxRow): Date | null {
    if (row.status !== "running" || row.timeout_seconds === null) return null;
    const ageMs = this.#with.activity.age(row.id) ?? Infinity;
    return new Date(Math.max(row.last_active_at.getTime(), Date.now() - ageMs) + row.timeout_seconds * 1_000);
  }

  /** A page, newest first, and whether more follow. Without a status asked for, all but stopped ones. */
  async list(
    teamId: TeamId,
    ask: Omit<ListSandboxesQuery, "cursor"> & { before?: SandboxId },
  ): Promise<{ rows: NamedSandboxRow[]; more: boolean }> {
    const statuses: readonly SandboxStatus[] = ask.status ?? sandboxStatuses.filter((status) => status !== "stopped");
    const rows = await listSandboxes(this.#with.store, {
      teamId,
      statuses,
      limit: ask.limit + 1,
      template: ask.template === undefined ? undefined : assertName(ask.template, "template"),
      metadata: ask.metadata,
      ...(ask.before === undefined ? {} : { before: ask.before }),
    });
    return { rows: rows.slice(0, ask.limit), more: rows.length > ask.limit };
  }

  /**
   * Answers once everything is freed. That the host no longer has the sandbox is success; any other failure reaches the
   * caller, and the sandbox stays `stopping` until the reconciler has succeeded.
   * @throws WrennError `sandbox_not_found`, `host_unavailable`, or why the host could not destroy it.
   */
  async destroy(teamId: TeamId, id: SandboxId): Promise<void> {
    await this.#finishOrRetry(await this.#markStopping(teamId, id));
    this.#with.log.info({ sandboxId: id, teamId }, "sandbox destroyed");
  }

  /**
   * Destroys a sandbox that was found idle for its whole timeout, unless it has been used or changed since.
   * @throws WrennError as `destroy` does; the reconciler goes on with it.
   */
  async destroyIdle(idle: IdleSandbox): Promise<void> {
    // What this replica knows and has not recorded yet.
    if (this.#with.activity.age(idle.id) !== undefined) return;
    const row = await changeStatus(this.#with.store, {
      from: idle,
      to: "stopping",
      reason: { code: "idle_timeout", message: "Nobody had used the sandbox for its whole timeout." },
      deadlineMs: deadlines.destroySandbox,
      onlyIf: idleForTooLong,
    });
    if (row === null) return;
    this.#with.onChange(row.id, row.status);
    await this.#finishOrRetry(row);
    this.#with.log.info({ sandboxId: row.id, teamId: row.team_id }, "destroyed a sandbox that was idle for too long");
  }

  async #finishOrRetry(row: SandboxRow): Promise<void> {
    try {
      await this.finishDestroy(row);
    } catch (error) {
      await expireDeadline(this.#with.store, row).catch((cause: unknown) => {
        this.#with.log.warn({ sandboxId: row.id, err: cause }, "could not have a failed destroy retried at once");
      });
      throw error;
    }
  }

  /** Destroys what a `stopping` row names on its host, then marks it `stopped`. Safe to repeat, also at the same time. */
  async finishDestroy(row: SandboxRow): Promise<void> {
    const { store, clients } = this.#with;
    const host = row.host_id === null ? null : await findHost(store, row.host_id);
    if (host !== null) await clients.get(host.address).ensureDestroyed(row.id);
    await changeStatus(store, { from: row, to: "stopped" });
    this.#with.onChange(row.id, "stopped");
  }

  async #markStopping(teamId: TeamId, id: SandboxId): Promise<SandboxRow> {
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const row = await this.get(teamId, id);
      if (!can.destroy(row.status)) throw new WrennError("sandbox_not_found", { message: "The sandbox is destroyed." });
      if (row.status === "stopping") return row;
      const deadlineMs = deadlines.destroySandbox;
      const changed = await changeStatus(this.#with.store, { from: row, to: "stopping", deadlineMs });
      if (changed !== null) {
        this.#with.onChange(id, changed.status);
        return changed;
      }
    }
    throw new WrennError("sandbox_busy");
  }
}
