/** Joins what should be (rows) with what is (a host's list) into what to do. It decides and does nothing. */
import { hostAgentProto } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import type { StatusReason } from "../store/change-status.ts";
import type { SandboxRow } from "../store/schema.ts";
import type { Sightings } from "./sightings.ts";

const { SandboxState } = hostAgentProto;

/** What the plan needs to know of a row. Rows must have been read before the host was asked. */
export type ExpectedSandbox = Pick<SandboxRow, "id" | "status" | "version"> & { readonly overdue: boolean };
export type HeldSandbox = Pick<hostAgentProto.Sandbox, "sandboxId" | "state" | "death" | "engine">;

export type Action<Row extends ExpectedSandbox = ExpectedSandbox> =
  /** The host runs it: the row may say so. */
  | { readonly do: "mark_running"; readonly row: Row; readonly engine: string }
  /** It is dead. The host may keep a tombstone of it, which is destroyed once its reason is recorded. */
  | { readonly do: "mark_error"; readonly row: Row; readonly reason: StatusReason; readonly tombstone: boolean }
  /** Nobody works on this destroy any more. */
  | { readonly do: "finish_destroy"; readonly row: Row }
  /** The host holds it and no row that was read expects it there. */
  | { readonly do: "remove_orphan"; readonly id: SandboxId };

/** What is suspected on one look is acted on when a later look still shows it: it may have been a moment between two steps. */
export function planReconciliation<Row extends ExpectedSandbox>(
  rows: readonly Row[],
  held: readonly HeldSandbox[],
  sightings: Sightings,
): Action<Row>[] {
  const heldById = new Map(held.map((sandbox) => [sandbox.sandboxId, sandbox]));
  const expected = new Set<string>(rows.map((row) => row.id));
  const actions = rows.flatMap((row) => planFor(row, heldById.get(row.id), sightings));
  const orphans = held.filter(
    ({ sandboxId, state }) =>
      !expected.has(sandboxId) &&
      state !== SandboxState.DESTROYING &&
      sightings.confirm(`orphan ${sandboxId} ${state === SandboxState.DEAD ? "dead" : "alive"}`),
  );
  return [...actions, ...orphans.map((orphan) => removeOrphan(orphan))];
}

function planFor<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox | undefined,
  sightings: Sightings,
): Action<Row>[] {
  switch (row.status) {
    case "starting":
    case "running":
    case "missing":
      return planForLiving(row, held, sightings);
    case "stopping":
      return row.overdue ? [{ do: "finish_destroy", row }] : [];
    case "pending":
      return row.overdue ? [{ do: "mark_error", row, reason: interrupted, tombstone: false }] : [];
    case "stopped":
    case "error":
      break;
  }
  return [];
}

function planForLiving<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox | undefined,
  sightings: Sightings,
): Action<Row>[] {
  switch (held?.state) {
    case SandboxState.RUNNING:
      return row.status === "running" ? [] : [{ do: "mark_running", row, engine: held.engine }];
    case SandboxState.DEAD:
      return [{ do: "mark_error", row, reason: reasonOf(held), tombstone: true }];
    case undefined: {
      // A create that is being asked for may not have reached the host yet.
      if (row.status === "starting" && !row.overdue) return [];
      if (!sightings.confirm(`lost ${row.id} ${row.version}`)) return [];
      const reason = row.status === "starting" ? interrupted : lost;
      return [{ do: "mark_error", row, reason, tombstone: false }];
    }
    case SandboxState.UNSPECIFIED:
    case SandboxState.CREATING:
    case SandboxState.DESTROYING:
      // Whoever asked the host for that is told the outcome.
      break;
  }
  return [];
}

const interrupted: StatusReason = {
  code: "create_interrupted",
  message: "The creation was cut short and the host does not have the sandbox.",
};

const lost: StatusReason = { code: "vm_died", message: "The host no longer has the sandbox." };

function reasonOf(held: HeldSandbox): StatusReason {
  return held.death === undefined
    ? { code: "vm_died", message: "The virtual machine ended unexpectedly." }
    : { code: held.death.code, message: held.death.message };
}

function removeOrphan(orphan: HeldSandbox): { do: "remove_orphan"; id: SandboxId } {
  return { do: "remove_orphan", id: orphan.sandboxId as SandboxId };
}
