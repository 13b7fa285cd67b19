/** Starting again what has died, from what its owner chooses: nothing is lost without being asked. */
import { can, deadlines, WrennError } from "@wrenn/contract";
import type { RecoverySource, SandboxId, TeamId } from "@wrenn/contract";
import { machineParts } from "../hosts/machine.ts";
import type { MachinePart } from "../hosts/machine.ts";
import { reserveStart } from "../store/reservations.ts";
import type { NamedSandboxRow } from "../store/sandboxes.ts";
import { noRoom } from "./hosts.ts";
import { refusal, toRunning } from "./operations.ts";
import type { Operations, SandboxServices } from "./operations.ts";

/** A guest that boots from its disk may find any machine that can open it. */
const neededFor: Readonly<Record<RecoverySource, readonly MachinePart[]>> = {
  disk: ["disk_format"],
  last_pause: machineParts,
};

export class Recoveries {
  readonly #with: SandboxServices;
  readonly #operations: Operations;

  constructor(services: SandboxServices, operations: Operations) {
    this.#with = services;
    this.#operations = operations;
  }

  /**
   * Answers once the sandbox runs.
   * @throws WrennError `sandbox_not_found`, `recovery_unavailable`, `sandbox_busy`, `sandbox_state_conflict`, `no_capacity`,
   * `snapshot_incompatible`, or why its host could not; then it is as it was
   */
  async recover(teamId: TeamId, id: SandboxId, from: RecoverySource): Promise<NamedSandboxRow> {
    const row = await this.#operations.get(teamId, id);
    const { recoverable } = row;
    if (!can.recover(row.status)) throw refusal(row);
    if (!recoverable.includes(from)) throw new WrennError("recovery_unavailable", { details: { recoverable } });
    const { id: hostId, client } = await this.#operations.hostOf(row, neededFor[from]);
    const deadlineMs = deadlines.recoverSandbox;
    const begun = await reserveStart(this.#with.store, { row, hostId, to: "starting", deadlineMs });
    if (begun === "no_room") throw noRoom(row.vcpus, row.memory_mib);
    if (begun === null) throw new WrennError("sandbox_busy");
    const { row: running } = await this.#operations.carryOut(begun, {
      done: "recovered",
      work: async () => client.recoverSandbox(id, from, this.#with.tokens.of(id)),
      steps: ({ steps }) => steps,
      success: toRunning,
      failure: (reason) => ({ to: "error", reason, recoverable }),
    });
    return { ...running, template: row.template };
  }
}
