/** Creating one sandbox, of a root filesystem or of a snapshot. creations.ts is where a request that may be a repeated one goes. */
import { asWrennError, assertName, deadlines, intervals, newId, sandboxLimits, WrennError } from "@wrenn/contract";
import type { CreateSandbox, hostAgentProto, SandboxStatus, TeamId } from "@wrenn/contract";
import type { HostClient } from "../hosts/host-client.ts";
import type { Scheduler } from "../hosts/scheduler.ts";
import { changeStatus } from "../store/change-status.ts";
import type { KeyedRequest } from "../store/idempotency-keys.ts";
import { listHostLoads } from "../store/reservations.ts";
import type { HostLoad, NewSandbox } from "../store/reservations.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import type { SandboxRow, TemplateRow } from "../store/schema.ts";
import { tokenOwner } from "../store/snapshots.ts";
import { findTemplate } from "../store/templates.ts";
import { placeSandbox } from "./hosts.ts";
import type { Placement } from "./hosts.ts";
import { isOutcomeUnknown, timesOf, toRunning } from "./operations.ts";
import type { Operations, SandboxServices } from "./operations.ts";

/** What a create depends on. */
export interface Prospect {
  /** Null when there is none of that name. */
  readonly template: TemplateRow | null;
  readonly loads: readonly HostLoad[];
}

export class SandboxCreation {
  readonly #with: SandboxServices;
  readonly #operations: Operations;
  readonly #scheduler: Scheduler;
  #lastHost: HostClient | null = null;

  constructor(services: SandboxServices, operations: Operations, scheduler: Scheduler) {
    this.#with = services;
    this.#operations = operations;
    this.#scheduler = scheduler;
  }

  /**
   * Reads what a create depends on, all at once. The host that has taken the last one will probably take this one, too, and is asked
   * meanwhile whether it is there.
   */
  async look(teamId: TeamId, ask: CreateSandbox): Promise<Prospect> {
    const { store } = this.#with;
    this.#lastHost?.recentFacts(intervals.hostFacts).catch(() => undefined);
    const [template, loads] = await Promise.all([
      findTemplate(store, teamId, assertName(ask.template, "template")),
      listHostLoads(store),
    ]);
    return { template, loads };
  }

  /**
   * Answers once the sandbox runs.
   * @param prospect what `look` has found a moment ago
   * @throws WrennError `invalid_name`, `template_not_found`, `invalid_request` for a size that the snapshot does not have, `no_capacity`,
   * `host_unavailable`, `snapshot_incompatible`, or why the host could not start it; `idempotency_conflict` when another request has taken the key meanwhile.
   */
  async create(
    teamId: TeamId,
    ask: CreateSandbox,
    { template, loads }: Prospect,
    keyed?: KeyedRequest,
  ): Promise<NamedSandboxRow> {
    const { store, clients } = this.#with;
    if (template === null) {
      throw new WrennError("template_not_found", { message: `There is no template named "${ask.template}".` });
    }
    const started = performance.now();
    const placement = await placeSandbox(
      { store, clients, scheduler: this.#scheduler },
      {
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
      },
      loads,
      template.host_id === null ? null : { hostId: template.host_id, machine: template },
    );
    this.#lastHost = placement.client;
    // Handed to the guest and kept nowhere else: it may hold secrets.
    const { row, steps } = await this.#start(placement, template, ask.envs);
    const milliseconds = Math.round(performance.now() - started);
    this.#with.log.info({ sandboxId: row.id, teamId, milliseconds, ...timesOf(steps) }, "sandbox created");
    return { ...row, template: template.name };
  }

  async #start(
    placement: Placement,
    template: TemplateRow,
    envs: Record<string, string>,
  ): Promise<{ row: SandboxRow; steps: readonly hostAgentProto.StepTiming[] }> {
    const { tokens } = this.#with;
    const { row, client } = placement;
    const frozen = tokenOwner(template);
    let settled: SandboxStatus | undefined;
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
        templateAccessToken: frozen === null ? "" : tokens.of(frozen),
      });
      const running = await this.#operations.settle(row, { ...toRunning(sandbox), startedAt: new Date() });
      settled = running.status;
      return { row: running, steps: sandbox.steps };
    } catch (error) {
      await this.#recordFailure(placement, error);
      throw error;
    } finally {
      this.#with.onChange(row.id, settled);
    }
  }

  /**
   * What the host says has failed is over: the host has freed everything. Where nobody knows, because the host could not
   * be heard, the sandbox is on its way to be destroyed, since its caller is told that there is none.
   */
  async #recordFailure({ row, client }: Placement, failure: unknown): Promise<void> {
    const { store, log } = this.#with;
    const error = asWrennError(failure);
    const reason = { code: error.code, message: error.message };
    log.error({ sandboxId: row.id, err: failure }, "sandbox did not start");
    try {
      const from = row;
      await changeStatus(
        store,
        isOutcomeUnknown(error) ? { from, to: "stopping", reason, deadlineMs: 0 } : { from, to: "error", reason },
      );
    } catch (cause) {
      log.error({ sandboxId: row.id, err: cause }, "could not record a failed start; the reconciler will");
      await client.ensureDestroyed(row.id).catch((error: unknown) => {
        log.error({ sandboxId: row.id, err: error }, "could not undo a start that could not be recorded");
      });
    }
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
