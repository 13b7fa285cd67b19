/**
 * What all operations on a sandbox that its host carries out have in common. Each begins with a change to a status that says what is
 * being done, and is completed whether or not its caller still listens. What the host reports is written down; where nobody knows
 * what the host did, and where this process ends in the middle, the reconciler asks the host.
 */
import { asWrennError, WrennError } from "@wrenn/contract";
import type { ErrorCode, hostAgentProto, MemoryBackend, SandboxId, SandboxStatus, TeamId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import type { Logger } from "pino";
import type { HostClient, HostClients } from "../hosts/host-client.ts";
import { differences, incompatible, machineOf } from "../hosts/machine.ts";
import type { MachinePart } from "../hosts/machine.ts";
import { changeStatus } from "../store/change-status.ts";
import type { StatusChange, StatusReason } from "../store/change-status.ts";
import type { Store } from "../store/database.ts";
import { findHost } from "../store/hosts.ts";
import { expireDeadline, findSandbox } from "../store/sandboxes.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import type { SandboxRow } from "../store/schema.ts";
import type { AccessTokens } from "./access-tokens.ts";
import type { Activity } from "./activity.ts";
import { presentHost } from "./hosts.ts";

export interface SandboxServices {
  readonly store: Store;
  readonly clients: HostClients;
  readonly tokens: AccessTokens;
  readonly activity: Activity;
  readonly log: Logger;
  /** Told of every sandbox whose status this replica has changed, and to what where that is known. */
  readonly onChange: (id: SandboxId, status?: SandboxStatus) => void;
  /** A host has to be asked what has become of something. */
  readonly onUnresolved: () => void;
}

/** How often an operation looks again when somebody else changes the sandbox at the same moment. */
export const maxAttempts = 10;
const settlePollMs = 100;

/** Failures that leave open what the host has done, or that say of the sandbox what its host's list says better. */
const outcomeUnknown: ReadonlySet<ErrorCode> = new Set([
  "host_unavailable",
  "database_unavailable",
  "shutting_down",
  "internal",
  "sandbox_not_found",
  "sandbox_died",
  "vm_died",
]);

export function isOutcomeUnknown(error: WrennError): boolean {
  return outcomeUnknown.has(error.code);
}

/** One operation on a sandbox that `begun` has marked for it. */
export interface Operation<Answer> {
  /** In the log, such as `paused`. */
  readonly done: string;
  /** Has the host do it. */
  readonly work: () => Promise<Answer>;
  /** What it took, for the log. */
  readonly steps?: (answer: Answer) => readonly hostAgentProto.StepTiming[];
  /** What it has become; null where its status was not changed for this. */
  readonly success: ((answer: Answer) => Omit<StatusChange, "from">) | null;
  /** What it is again when the host says that it could not; null where its status was not changed for this. */
  readonly failure: ((reason: StatusReason) => Omit<StatusChange, "from">) | null;
}

export class Operations {
  readonly #with: SandboxServices;

  constructor(services: SandboxServices) {
    this.#with = services;
  }

  /** @throws WrennError `sandbox_not_found`, also for another team's */
  async get(teamId: TeamId, id: SandboxId): Promise<NamedSandboxRow> {
    const row = await findSandbox(this.#with.store, id);
    if (row === null || row.team_id !== teamId) throw new WrennError("sandbox_not_found");
    return row;
  }

  /**
   * The host that has the sandbox. That it is away, or runs another engine than the sandbox needs, is found out before anything is marked
   * that somebody has to clean up.
   * @param needed in what the host must be as the sandbox was when it last ran
   * @throws WrennError `host_unavailable`, `snapshot_incompatible`
   */
  async hostOf(
    row: SandboxRow,
    needed: readonly MachinePart[] = [],
  ): Promise<{ readonly id: NonNullable<SandboxRow["host_id"]>; readonly client: HostClient }> {
    const { store, clients } = this.#with;
    const found = row.host_id === null ? null : await findHost(store, row.host_id);
    if (found === null) throw new WrennError("internal", { message: "The sandbox is on no host." });
    const client = clients.get(found.address);
    const host = await presentHost(store, client, found);
    if (differences(row, host, needed).length > 0) throw incompatible("sandbox", row, [host], needed);
    return { id: host.id, client };
  }

  /**
   * @throws WrennError what the host reports, or `host_unavailable` when it does not answer; `sandbox_state_conflict` when the
   * sandbox was destroyed meanwhile
   */
  async carryOut<Answer>(
    begun: SandboxRow,
    operation: Operation<Answer>,
  ): Promise<{ row: SandboxRow; answer: Answer }> {
    const { log, onChange } = this.#with;
    const { done, success } = operation;
    const started = performance.now();
    let settled: SandboxStatus | undefined;
    onChange(begun.id, begun.status);
    try {
      const answer = await this.#attempt(begun, operation);
      const row = success === null ? begun : await this.settle(begun, success(answer));
      settled = row.status;
      const milliseconds = Math.round(performance.now() - started);
      const steps = timesOf(operation.steps?.(answer) ?? []);
      log.info({ sandboxId: begun.id, teamId: begun.team_id, milliseconds, ...steps }, `sandbox ${done}`);
      return { row, answer };
    } finally {
      onChange(begun.id, settled);
    }
  }

  /**
   * What the host has done is written down.
   * @throws WrennError `sandbox_state_conflict` and the like, when the sandbox was destroyed or died meanwhile
   */
  async settle(begun: SandboxRow, change: Omit<StatusChange, "from">): Promise<SandboxRow> {
    const { store, clients } = this.#with;
    const changed = await changeStatus(store, { from: begun, ...change });
    if (changed !== null) return changed;
    // The reconciler saw it first, or somebody destroys it.
    const now = await findSandbox(store, begun.id);
    if (now?.status === change.to) return now;
    if (now === null || now.status === "stopping" || now.status === "stopped") {
      // Whoever ended it may have asked the host before the host had begun.
      const host = begun.host_id === null ? null : await findHost(store, begun.host_id);
      if (host !== null) await clients.get(host.address).ensureDestroyed(begun.id);
    }
    throw now === null ? new WrennError("sandbox_not_found") : refusal(now);
  }

  /** Looks until the sandbox has another status than this, at most until the time is up. */
  async settled(row: NamedSandboxRow, timeoutMs: number): Promise<NamedSandboxRow> {
    const look = async (): Promise<NamedSandboxRow | null> => {
      const now = await this.get(row.team_id, row.id);
      return now.status === row.status ? null : now;
    };
    const now = await pollUntil(look, { timeoutMs, intervalMs: settlePollMs });
    if (now === null) throw refusal(row);
    return now;
  }

  async #attempt<Answer>(begun: SandboxRow, { done, work, failure }: Operation<Answer>): Promise<Answer> {
    const { store, log } = this.#with;
    try {
      return await work();
    } catch (thrown) {
      const error = asWrennError(thrown);
      const about = { sandboxId: begun.id, teamId: begun.team_id, err: thrown };
      if (failure === null) {
        log.error(about, `sandbox not ${done}`);
        throw error;
      }
      try {
        if (isOutcomeUnknown(error)) await this.#leaveToReconciler(begun);
        else await changeStatus(store, { from: begun, ...failure({ code: error.code, message: error.message }) });
        log.error(about, `sandbox not ${done}`);
      } catch (cause) {
        log.error({ ...about, cause }, `sandbox not ${done}, which could not be written down; the reconciler will`);
      }
      throw error;
    }
  }

  async #leaveToReconciler(begun: SandboxRow): Promise<void> {
    await expireDeadline(this.#with.store, begun);
    this.#with.onUnresolved();
  }
}

/** Why something cannot be done with a sandbox in this status. */
export function refusal({ status, recoverable }: Pick<SandboxRow, "status" | "recoverable">): WrennError {
  switch (status) {
    case "paused":
      return new WrennError("sandbox_paused", { details: { status } });
    case "pending":
    case "starting":
    case "snapshotting":
    case "pausing":
    case "resuming":
      return new WrennError("sandbox_busy", { message: `The sandbox is ${status}.`, details: { status } });
    case "error":
      return new WrennError("sandbox_died", { details: { status, recoverable } });
    case "running":
    case "missing":
    case "stopping":
    case "stopped":
      break;
  }
  return new WrennError("sandbox_state_conflict", {
    message: `The sandbox is ${status}, which does not allow this.`,
    details: { status },
  });
}

/** A change to `running`, with what its host says of it. */
export function toRunning(
  sandbox: Pick<
    hostAgentProto.Sandbox,
    "engine" | "engineVersion" | "engineReason" | "cpu" | "diskFormat" | "memoryBackend"
  >,
): Pick<StatusChange, "machine"> & {
  readonly to: Extract<SandboxStatus, "running">;
  readonly memoryBackend: MemoryBackend | null;
} {
  const { engine, engineReason, memoryBackend } = sandbox;
  return {
    to: "running",
    ...(engine === "" ? {} : { machine: { ...machineOf(sandbox), engine_reason: engineReason || null } }),
    memoryBackend: memoryBackend === "file" || memoryBackend === "uffd" ? memoryBackend : null,
  };
}

/** Steps as the log has them. */
export function timesOf(steps: readonly hostAgentProto.StepTiming[]): { steps?: Record<string, number> } {
  if (steps.length === 0) return {};
  return { steps: Object.fromEntries(steps.map(({ step, milliseconds }) => [step, milliseconds])) };
}
