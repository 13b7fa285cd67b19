/**
 * What may be done with sandboxes. Every operation, once begun, is completed whether or not its caller still listens: a
 * client that leaves during a create finds the sandbox in its list. What a crash of this process cuts short is completed
 * by the reconciler.
 */
import { assertName, can, deadlines, newId, sandboxLimits, sandboxStatuses, WrennError } from "@wrenn/contract";
import type {
  CreateSandbox,
  ErrorCode,
  ListSandboxesQuery,
  SandboxId,
  SandboxStatus,
  TeamId,
  UpdateSandbox,
} from "@wrenn/contract";
import type { Logger } from "pino";
import type { HostClients } from "../hosts/host-client.ts";
import type { Scheduler } from "../hosts/scheduler.ts";
import { idleForTooLong } from "../store/activity.ts";
import type { IdleSandbox } from "../store/activity.ts";
import { changeStatus } from "../store/change-status.ts";
import type { Store } from "../store/database.ts";
import { findHost } from "../store/hosts.ts";
import type { KeyedRequest } from "../store/idempotency-keys.ts";
import { expireDeadline, findSandbox, listSandboxes, updateSandbox } from "../store/sandboxes.ts";
import type { NamedSandboxRow, NewSandbox } from "../store/sandboxes.ts";
import type { SandboxRow, TemplateRow } from "../store/schema.ts";
import { findTemplate } from "../store/templates.ts";
import type { AccessTokens } from "./access-tokens.ts";
import type { Activity } from "./activity.ts";
import { placeSandbox } from "./hosts.ts";
import type { Placement } from "./hosts.ts";
import type { SandboxTargets } from "./sandbox-targets.ts";

export interface SandboxServices {
  readonly store: Store;
  readonly clients: HostClients;
  readonly scheduler: Scheduler;
  readonly tokens: AccessTokens;
  readonly targets: SandboxTargets;
  readonly activity: Activity;
  readonly log: Logger;
  /** Told of every sandbox whose status this replica has changed. */
  readonly onChange: (id: SandboxId) => void;
}

/** How often a destroy looks again when somebody else changes the sandbox at the same moment. */
const maxAttempts = 10;

/** Failures that leave open whether the host has the sandbox. */
const outcomeUnknown: ReadonlySet<ErrorCode> = new Set([
  "host_unavailable",
  "database_unavailable",
  "shutting_down",
  "internal",
]);

export class Sandboxes {
  readonly #with: SandboxServices;

  constructor(services: SandboxServices) {
    this.#with = services;
  }

  /**
   * Answers once the sandbox runs. creations.ts is where a request that may be a repeated one goes.
   * @throws WrennError `invalid_name`, `template_not_found`, `no_capacity`, `host_unavailable`, or why the host could not start it;
   * `idempotency_conflict` when another request has taken the key meanwhile.
   */
  async create(teamId: TeamId, ask: CreateSandbox, keyed?: KeyedRequest): Promise<NamedSandboxRow> {
    const { store } = this.#with;
    const template = await findTemplate(store, teamId, assertName(ask.template, "template"));
    if (template === null) {
      throw new WrennError("template_not_found", { message: `There is no template named "${ask.template}".` });
    }
    const started = performance.now();
    const placement = await placeSandbox(this.#with, {
      id: newId("sandbox"),
      teamId,
      templateId: template.id,
      templateTeamId: template.team_id,
      ...sizesFor(template, ask),
      metadata: ask.metadata,
      timeoutSeconds: ask.timeout_seconds,
      onTimeout: ask.on_timeout,
      deadlineMs: deadlines.createSandbox,
      ...(keyed === undefined ? {} : { keyed }),
    });
    // Handed to the guest and kept nowhere else: it may hold secrets.
    const row = await this.#start(placement, template, ask.envs);
    const milliseconds = Math.round(performance.now() - started);
    this.#with.log.info({ sandboxId: row.id, teamId, milliseconds }, "sandbox created");
    return { ...row, template: template.name };
  }

  async #start(placement: Placement, template: TemplateRow, envs: Record<string, string>): Promise<SandboxRow> {
    const { store, tokens } = this.#with;
    const { row, client } = placement;
    try {
      const sandbox = await client.createSandbox({
        sandboxId: row.id,
        teamId: row.team_id,
        templateTeamId: template.team_id,
        templateId: template.id,
        vcpus: row.vcpus,
        memoryMib: row.memory_mib,
        diskMib: row.disk_mib,
        envs,
        accessToken: tokens.of(row.id),
      });
      const running = await changeStatus(store, {
        from: row,
        to: "running",
        engine: sandbox.engine,
        startedAt: new Date(),
      });
      return running ?? (await this.#overtaken(placement));
    } catch (error) {
      await this.#recordFailedStart(placement, error);
      throw error;
    } finally {
      this.#with.onChange(row.id);
    }
  }

  /** The sandbox started, but its row had changed meanwhile: by the reconciler, or by a destroy. */
  async #overtaken({ row, client }: Placement): Promise<SandboxRow> {
    const now = await findSandbox(this.#with.store, row.id);
    if (now?.status === "running") return now;
    // Whoever ended it may have asked the host before the host had heard of it.
    await client.ensureDestroyed(row.id);
    throw new WrennError("sandbox_state_conflict", {
      message: "The sandbox was destroyed while it started.",
      details: { status: now?.status ?? "stopped" },
    });
  }

  /**
   * What the host says has failed is over: the host has freed everything. Where nobody knows, because the host could not
   * be heard, the sandbox is on its way to be destroyed, since its caller is told that there is none.
   */
  async #recordFailedStart({ row, client }: Placement, failure: unknown): Promise<void> {
    const { store, log } = this.#with;
    const error = failure instanceof WrennError ? failure : new WrennError("internal", { cause: failure });
    const reason = { code: error.code, message: error.message };
    const unknown = outcomeUnknown.has(error.code);
    log.error({ sandboxId: row.id, err: failure }, "sandbox did not start");
    try {
      await changeStatus(
        store,
        unknown ? { from: row, to: "stopping", reason, deadlineMs: 0 } : { from: row, to: "error", reason },
      );
    } catch (cause) {
      log.error({ sandboxId: row.id, err: cause }, "could not record a failed start; the reconciler will");
      await client.ensureDestroyed(row.id).catch((error: unknown) => {
        log.error({ sandboxId: row.id, err: error }, "could not undo a start that could not be recorded");
      });
    }
  }

  /** @throws WrennError `sandbox_not_found`, also for another team's. */
  async get(teamId: TeamId, id: SandboxId): Promise<NamedSandboxRow> {
    const row = await findSandbox(this.#with.store, id);
    if (row === null || row.team_id !== teamId) throw new WrennError("sandbox_not_found");
    return row;
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
    await this.#with.targets.findReachable(teamId, id);
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
    this.#with.onChange(row.id);
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
    this.#with.onChange(row.id);
  }

  async #markStopping(teamId: TeamId, id: SandboxId): Promise<SandboxRow> {
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const row = await this.get(teamId, id);
      if (!can.destroy(row.status)) throw new WrennError("sandbox_not_found", { message: "The sandbox is destroyed." });
      if (row.status === "stopping") return row;
      const deadlineMs = deadlines.destroySandbox;
      const changed = await changeStatus(this.#with.store, { from: row, to: "stopping", deadlineMs });
      if (changed !== null) {
        this.#with.onChange(id);
        return changed;
      }
    }
    throw new WrennError("sandbox_busy");
  }
}

/**
 * What the request names, else the defaults; a disk is never smaller than its template's file system. The sizes of a snapshot's
 * sandboxes are in its frozen memory.
 * @throws WrennError `invalid_request` for a size that differs from the snapshot's
 */
function sizesFor(template: TemplateRow, ask: CreateSandbox): Pick<NewSandbox, "vcpus" | "memoryMib" | "diskMib"> {
  if (template.type === "base") {
    return {
      vcpus: ask.vcpus ?? sandboxLimits.vcpus.default,
      memoryMib: ask.memory_mib ?? sandboxLimits.memoryMib.default,
      diskMib: Math.max(ask.disk_mib ?? sandboxLimits.diskMib.default, template.disk_mib),
    };
  }
  const frozen = { vcpus: template.vcpus, memory_mib: template.memory_mib, disk_mib: template.disk_mib };
  const fields = (["vcpus", "memory_mib", "disk_mib"] as const)
    .filter((field) => ask[field] !== undefined && ask[field] !== frozen[field])
    .map((field) => ({ field, problem: `is ${frozen[field]} in the snapshot, whose sandboxes can have no other` }));
  const [first] = fields;
  if (first !== undefined) {
    throw new WrennError("invalid_request", {
      message: `The request is not valid: ${first.field} ${first.problem}.`,
      details: { fields },
    });
  }
  if (frozen.vcpus === null || frozen.memory_mib === null) {
    throw new WrennError("internal", { message: "The snapshot has no sizes." });
  }
  return { vcpus: frozen.vcpus, memoryMib: frozen.memory_mib, diskMib: frozen.disk_mib };
}
