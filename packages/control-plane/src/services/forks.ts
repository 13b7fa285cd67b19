/** Copying a running or paused sandbox, memory and disk: as many copies as are asked for, or none. */
import { asWrennError, can, deadlines, newId, WrennError } from "@wrenn/contract";
import type { ForkSandbox, hostAgentProto, SandboxId, SandboxStatus, TeamId } from "@wrenn/contract";
import type { HostClient } from "../hosts/host-client.ts";
import { machineParts } from "../hosts/machine.ts";
import { changeStatus } from "../store/change-status.ts";
import { reserveCopies } from "../store/reservations.ts";
import type { ReservedCopies } from "../store/reservations.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import type { SandboxRow } from "../store/schema.ts";
import { noRoom } from "./hosts.ts";
import { maxAttempts, refusal, toRunning } from "./operations.ts";
import type { Operations, SandboxServices } from "./operations.ts";
import type { Sandboxes } from "./sandboxes.ts";

export class Forks {
  readonly #with: SandboxServices;
  readonly #operations: Operations;
  readonly #sandboxes: Sandboxes;

  constructor(services: SandboxServices, operations: Operations, sandboxes: Sandboxes) {
    this.#with = services;
    this.#operations = operations;
    this.#sandboxes = sandboxes;
  }

  /**
   * Answers once all copies run. Their environment is in the memory that they are copied with.
   * @throws WrennError `sandbox_not_found`, `sandbox_busy`, `sandbox_died`, `sandbox_state_conflict`, `no_capacity`,
   * `snapshot_incompatible`, or why the host could not; then there is no copy, and the sandbox is as it was
   */
  async fork(teamId: TeamId, id: SandboxId, ask: ForkSandbox): Promise<NamedSandboxRow[]> {
    for (let attempt = 0; attempt < maxAttempts; attempt += 1) {
      const source = await this.#operations.get(teamId, id);
      if (!can.copy(source.status)) throw refusal(source);
      const { id: hostId, client } = await this.#operations.hostOf(source, machineParts);
      const copies = Array.from({ length: ask.count }, () => ({
        id: newId("sandbox"),
        teamId,
        templateId: source.template_id,
        templateTeamId: source.template_team_id,
        vcpus: source.vcpus,
        memoryMib: source.memory_mib,
        diskMib: source.disk_mib,
        metadata: ask.metadata ?? source.metadata,
        timeoutSeconds: ask.timeout_seconds === undefined ? source.timeout_seconds : ask.timeout_seconds,
        onTimeout: source.on_timeout,
        deadlineMs: deadlines.forkSandbox,
      }));
      const deadlineMs = deadlines.forkSandbox;
      const reserved = await reserveCopies(this.#with.store, { source, hostId, copies, deadlineMs });
      if (reserved === "no_room") throw noRoom(ask.count * source.vcpus, ask.count * source.memory_mib);
      if (reserved === null) continue;
      const rows = await this.#copy(reserved, client);
      return rows.map((row) => ({ ...row, template: source.template }));
    }
    throw new WrennError("sandbox_busy");
  }

  async #copy({ source, copies }: ReservedCopies, client: HostClient): Promise<SandboxRow[]> {
    const { tokens } = this.#with;
    const isMarked = source.status === "snapshotting";
    let settled: SandboxStatus | undefined;
    try {
      const { answer } = await this.#operations.carryOut(source, {
        done: "forked",
        work: async () =>
          client.forkSandbox(
            source.id,
            tokens.of(source.id),
            copies.map((copy) => ({ sandboxId: copy.id, accessToken: tokens.of(copy.id) })),
          ),
        success: isMarked ? () => ({ to: "running" }) : null,
        failure: isMarked ? (reason) => ({ to: "running", reason }) : null,
      });
      const rows = await Promise.all(copies.map(async (copy) => this.#started(copy, answer)));
      settled = "running";
      return rows;
    } catch (error) {
      await Promise.all(copies.map(async (copy) => this.#undo(copy, error)));
      throw error;
    } finally {
      for (const { id } of copies) this.#with.onChange(id, settled);
    }
  }

  async #started(copy: SandboxRow, answer: readonly hostAgentProto.Sandbox[]): Promise<SandboxRow> {
    const sandbox = answer.find(({ sandboxId }) => sandboxId === copy.id);
    if (sandbox === undefined) throw new WrennError("internal", { message: "The host agent's answer lacks a copy." });
    return this.#operations.settle(copy, { ...toRunning(sandbox), startedAt: new Date() });
  }

  /** Whatever the host has of it goes, now or at the reconciler's next round. */
  async #undo(copy: SandboxRow, failure: unknown): Promise<void> {
    const { store, log } = this.#with;
    const { code, message } = asWrennError(failure);
    try {
      const now = await this.#operations.get(copy.team_id, copy.id);
      if (!can.destroy(now.status)) return;
      const reason = { code, message };
      const stopping =
        now.status === "stopping"
          ? now
          : await changeStatus(store, { from: now, to: "stopping", reason, deadlineMs: 0 });
      if (stopping !== null) await this.#sandboxes.finishDestroy(stopping);
    } catch (error) {
      log.error({ sandboxId: copy.id, err: error }, "could not undo a copy; the reconciler will");
    }
  }
}
