/** Pausing and resuming: asked for by a user, or because nobody uses a sandbox. */
import { can, deadlines, isErrorCode, WrennError } from "@wrenn/contract";
import type { hostAgentProto, SandboxId, TeamId } from "@wrenn/contract";
import { machineParts } from "../hosts/machine.ts";
import { idleForTooLong } from "../store/activity.ts";
import type { IdleSandbox } from "../store/activity.ts";
import { changeStatus } from "../store/change-status.ts";
import type { StatusReason } from "../store/change-status.ts";
import { reserveStart } from "../store/reservations.ts";
import { findSandbox } from "../store/sandboxes.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import type { SandboxRow } from "../store/schema.ts";
import { noRoom } from "./hosts.ts";
import { maxAttempts, refusal, toRunning } from "./operations.ts";
import type { Operations, SandboxServices } from "./operations.ts";

export class Freezing {
  readonly #with: SandboxServices;
  readonly #operations: Operations;

  constructor(services: SandboxServices, operations: Operations) {
    this.#with = services;
    this.#operations = operations;
  }

  /**
   * Answers once the sandbox is paused. One that is paused already is success; one that is being paused is waited for.
   * @throws WrennError `sandbox_not_found`, `sandbox_busy`, `sandbox_died`, `sandbox_state_conflict`, or why its host could not; then it runs
   */
  async pause(teamId: TeamId, id: SandboxId): Promise<NamedSandboxRow> {
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const row = await this.#operations.get(teamId, id);
      if (row.status === "paused") return row;
      if (row.status === "pausing") return this.#outcome(row, "paused", deadlines.pauseSandbox);
      if (!can.pause(row.status)) throw refusal(row);
      const { client } = await this.#operations.hostOf(row);
      const deadlineMs = deadlines.pauseSandbox;
      const begun = await changeStatus(this.#with.store, { from: row, to: "pausing", deadlineMs });
      if (begun === null) continue;
      return { ...(await this.#freeze(begun, client, (reason) => reason)), template: row.template };
    }
    throw new WrennError("sandbox_busy");
  }

  /**
   * Pauses a sandbox that was found idle for its whole timeout, unless it has been used or changed since. When that fails it goes on
   * running and says why; store/change-status.ts says when it is tried again. Nothing is tried while its host is away, which others tell.
   * @throws WrennError why its host could not
   */
  async pauseIdle(idle: IdleSandbox): Promise<void> {
    const { store, activity } = this.#with;
    // What this replica knows and has not recorded yet.
    if (activity.age(idle.id) !== undefined) return;
    const row = await findSandbox(store, idle.id);
    if (row === null) return;
    const host = await this.#operations.hostOf(row).catch((error: unknown) => {
      if (error instanceof WrennError && error.code === "host_unavailable") return null;
      throw error;
    });
    if (host === null) return;
    const begun = await changeStatus(store, {
      from: idle,
      to: "pausing",
      reason: { code: "idle_timeout", message: "Nobody had used the sandbox for its whole timeout." },
      deadlineMs: deadlines.pauseSandbox,
      onlyIf: idleForTooLong,
    });
    if (begun === null) return;
    await this.#freeze(begun, host.client, ({ code, message }) => ({
      code,
      message: `Nobody had used the sandbox for its whole timeout, but it could not be paused: ${message}`,
    }));
  }

  /**
   * Answers once the sandbox runs. One that runs already is success; one that is being resumed is waited for.
   * @throws WrennError `sandbox_not_found`, `sandbox_busy`, `sandbox_died`, `sandbox_state_conflict`, `no_capacity`,
   * `snapshot_incompatible`, or why its host could not; then it is paused still
   */
  async resume(teamId: TeamId, id: SandboxId): Promise<NamedSandboxRow> {
    const { store, tokens } = this.#with;
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const row = await this.#operations.get(teamId, id);
      if (row.status === "running") return row;
      if (row.status === "resuming") return this.#outcome(row, "running", deadlines.resumeSandbox);
      if (!can.resume(row.status)) throw refusal(row);
      const { id: hostId, client } = await this.#operations.hostOf(row, machineParts);
      const deadlineMs = deadlines.resumeSandbox;
      const begun = await reserveStart(store, { row, hostId, to: "resuming", deadlineMs });
      if (begun === "no_room") throw noRoom(row.vcpus, row.memory_mib);
      if (begun === null) continue;
      const { row: running } = await this.#operations.carryOut(begun, {
        done: "resumed",
        work: async () => client.resumeSandbox(id, tokens.of(id)),
        steps: ({ steps }) => steps,
        success: toRunning,
        failure: (reason) => ({ to: "paused", reason }),
      });
      return { ...running, template: row.template };
    }
    throw new WrennError("sandbox_busy");
  }

  async #freeze(
    begun: SandboxRow,
    client: { pauseSandbox(id: SandboxId): Promise<hostAgentProto.Sandbox> },
    explain: (reason: StatusReason) => StatusReason,
  ): Promise<SandboxRow> {
    const { row } = await this.#operations.carryOut(begun, {
      done: "paused",
      work: async () => client.pauseSandbox(begun.id),
      steps: ({ steps }) => steps,
      success: () => ({ to: "paused" }),
      failure: (reason) => ({ to: "running", reason: explain(reason) }),
    });
    return row;
  }

  /** Of what another request has begun: who waits for it learns how it ended as the one that began it does. */
  async #outcome(row: NamedSandboxRow, wanted: "paused" | "running", timeoutMs: number): Promise<NamedSandboxRow> {
    const now = await this.#operations.settled(row, timeoutMs);
    if (now.status === wanted) return now;
    const { status_reason_code: code, status_reason_message: message } = now;
    const failed = now.status === (wanted === "paused" ? "running" : "paused");
    if (!failed || code === null || !isErrorCode(code)) throw refusal(now);
    throw new WrennError(code, message === null ? {} : { message });
  }
}
