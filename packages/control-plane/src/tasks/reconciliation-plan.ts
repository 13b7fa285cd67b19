/**
 * Joins what should be (rows) with what is (a host's list) into what to do. It decides and does nothing. A row that something works
 * on is left to that until its deadline has passed; what its host says for certain is believed at once; what it does not say is a
 * suspicion, acted on when a later look still shows it: it may have been a moment between two steps.
 */
import { hostAgentProto, recoverySources } from "@wrenn/contract";
import type { RecoverySource, SandboxId } from "@wrenn/contract";
import type { StatusReason } from "../store/change-status.ts";
import type { SandboxRow } from "../store/schema.ts";
import type { Sightings } from "./sightings.ts";

const { SandboxState } = hostAgentProto;

/** What the plan needs to know of a row. Rows must have been read before the host was asked. */
export type ExpectedSandbox = Pick<SandboxRow, "id" | "status" | "version" | "started_at" | "recoverable"> & {
  readonly overdue: boolean;
};
export type HeldSandbox = Pick<
  hostAgentProto.Sandbox,
  | "sandboxId"
  | "state"
  | "death"
  | "engine"
  | "engineVersion"
  | "engineReason"
  | "cpu"
  | "diskFormat"
  | "memoryBackend"
  | "recoverable"
>;

export type Action<Row extends ExpectedSandbox = ExpectedSandbox> =
  /** The host runs it: the row may say so. */
  | { readonly do: "mark_running"; readonly row: Row; readonly held: HeldSandbox; readonly reason: StatusReason | null }
  /** The host holds it paused. */
  | { readonly do: "mark_paused"; readonly row: Row; readonly reason: StatusReason | null }
  /** It is dead, and the host keeps what it can be recovered from until it is destroyed. */
  | {
      readonly do: "mark_dead";
      readonly row: Row;
      readonly reason: StatusReason;
      readonly recoverable: RecoverySource[];
    }
  /** Nothing has come of a creation. */
  | { readonly do: "mark_failed"; readonly row: Row; readonly reason: StatusReason }
  /** The host holds nothing of what it should. */
  | { readonly do: "mark_lost"; readonly row: Row }
  /** What has become of it cannot be told: its host stays away, or it is for an operator to decide whether it is lost. */
  | { readonly do: "mark_missing"; readonly row: Row; readonly reason: StatusReason }
  /** What a dead one can be recovered from is not what the row says. */
  | { readonly do: "note_recoverable"; readonly row: Row; readonly recoverable: RecoverySource[] }
  /** It was given up, or thought to be paused, and is there: the first of the two steps to `running`. */
  | { readonly do: "revive"; readonly row: Row; readonly to: "starting" | "resuming" }
  /** Its caller was told that it has not come to be, and its host has it nevertheless. */
  | { readonly do: "remove_remains"; readonly row: Row }
  /** Nobody works on this destroy any more. */
  | { readonly do: "finish_destroy"; readonly row: Row }
  /** The host holds it and no row that was read expects it there. */
  | { readonly do: "remove_orphan"; readonly id: SandboxId };

export function planReconciliation<Row extends ExpectedSandbox>(
  rows: readonly Row[],
  held: readonly HeldSandbox[],
  sightings: Sightings,
): Action<Row>[] {
  const heldById = new Map(held.map((sandbox) => [sandbox.sandboxId, sandbox]));
  const expected = new Set<string>(rows.map((row) => row.id));
  const actions = rows.flatMap((row) => planFor(row, heldById.get(row.id), sightings) ?? []);
  const orphans = held.filter(
    ({ sandboxId, state }) =>
      !expected.has(sandboxId) &&
      state !== SandboxState.DESTROYING &&
      sightings.confirm(`orphan ${sandboxId} ${state === SandboxState.DEAD ? "dead" : "alive"}`),
  );
  return [...actions, ...orphans.map((orphan) => removeOrphan(orphan))];
}

/** Whether a host that holds nothing of this sandbox has lost something. */
export function mayBeLost(row: ExpectedSandbox): boolean {
  switch (row.status) {
    case "running":
    case "missing":
    case "snapshotting":
    case "pausing":
    case "paused":
    case "resuming":
      return true;
    case "starting":
      return isRecovery(row);
    case "error":
      return row.recoverable.length > 0;
    case "pending":
    case "stopping":
    case "stopped":
      break;
  }
  return false;
}

function planFor<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox | undefined,
  sightings: Sightings,
): Action<Row> | null {
  switch (row.status) {
    case "pending":
      return row.overdue ? { do: "mark_failed", row, reason: interrupted } : null;
    case "stopping":
      return row.overdue ? { do: "finish_destroy", row } : null;
    case "error":
      return planForDead(row, held, sightings);
    case "starting":
    case "running":
    case "missing":
    case "snapshotting":
    case "pausing":
    case "paused":
    case "resuming":
      return planForLiving(row, held, sightings);
    case "stopped":
      break;
  }
  return null;
}

function planForLiving<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox | undefined,
  sightings: Sightings,
): Action<Row> | null {
  switch (held?.state) {
    case SandboxState.RUNNING:
      return planForRunning(row, held, sightings);
    case SandboxState.PAUSED:
      return planForPaused(row, held, sightings);
    case SandboxState.DEAD:
      // What is being recovered is dead until the host has begun.
      if (isRecovery(row) && !row.overdue) return null;
      return { do: "mark_dead", row, reason: reasonOf(held), recoverable: recoverableOf(held) };
    case undefined:
      return planForAbsent(row, sightings);
    case SandboxState.UNSPECIFIED:
    case SandboxState.CREATING:
    case SandboxState.DESTROYING:
    case SandboxState.PAUSING:
    case SandboxState.RESUMING:
    case SandboxState.SNAPSHOTTING:
      // Whoever asked the host for that is told the outcome; a guest that stands still for it has not died.
      break;
  }
  return null;
}

function planForRunning<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox,
  sightings: Sightings,
): Action<Row> | null {
  const running: Action<Row> = { do: "mark_running", row, held, reason: null };
  switch (row.status) {
    case "starting":
    case "resuming":
    case "missing":
      return running;
    case "snapshotting":
      return row.overdue && sightings.confirm(`settled ${row.id} ${row.version}`) ? running : null;
    case "pausing":
      // The host may not have been reached yet by whoever asks it to.
      if (!row.overdue || !sightings.confirm(`settled ${row.id} ${row.version}`)) return null;
      return { ...running, reason: notPaused };
    case "paused":
      return sightings.confirm(`thawed ${row.id} ${row.version}`) ? { do: "revive", row, to: "resuming" } : null;
    case "running":
    case "pending":
    case "stopping":
    case "stopped":
    case "error":
      break;
  }
  return null;
}

function planForPaused<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox,
  sightings: Sightings,
): Action<Row> | null {
  switch (row.status) {
    case "running":
    case "pausing":
    case "missing":
      return { do: "mark_paused", row, reason: null };
    case "resuming":
      if (!row.overdue || !sightings.confirm(`settled ${row.id} ${row.version}`)) return null;
      return { do: "mark_paused", row, reason: notResumed };
    case "starting":
    case "snapshotting":
      // There is no way from here to `paused` but over `running`, which the next look finds paused.
      if (!row.overdue || !sightings.confirm(`settled ${row.id} ${row.version}`)) return null;
      return { do: "mark_running", row, held, reason: null };
    case "paused":
    case "pending":
    case "stopping":
    case "stopped":
    case "error":
      break;
  }
  return null;
}

function planForAbsent<Row extends ExpectedSandbox>(row: Row, sightings: Sightings): Action<Row> | null {
  // A create that is being asked for may not have reached the host yet.
  if (!mayBeLost(row)) {
    if (!row.overdue || !sightings.confirm(`lost ${row.id} ${row.version}`)) return null;
    return { do: "mark_failed", row, reason: interrupted };
  }
  return sightings.confirm(`lost ${row.id} ${row.version}`) ? { do: "mark_lost", row } : null;
}

function planForDead<Row extends ExpectedSandbox>(
  row: Row,
  held: HeldSandbox | undefined,
  sightings: Sightings,
): Action<Row> | null {
  switch (held?.state) {
    case undefined:
      if (!mayBeLost(row)) return null;
      return sightings.confirm(`lost ${row.id} ${row.version}`) ? { do: "mark_lost", row } : null;
    case SandboxState.DEAD: {
      const recoverable = recoverableOf(held);
      const isKnown = recoverable.toSorted().join() === row.recoverable.toSorted().join();
      return isKnown ? null : { do: "note_recoverable", row, recoverable };
    }
    case SandboxState.RUNNING:
    case SandboxState.PAUSED:
      if (!sightings.confirm(`alive ${row.id} ${row.version}`)) return null;
      return row.started_at === null ? { do: "remove_remains", row } : { do: "revive", row, to: "starting" };
    case SandboxState.UNSPECIFIED:
    case SandboxState.CREATING:
    case SandboxState.DESTROYING:
    case SandboxState.PAUSING:
    case SandboxState.RESUMING:
    case SandboxState.SNAPSHOTTING:
      break;
  }
  return null;
}

/** Only what has run can die, and be started again. */
export function isRecovery(row: ExpectedSandbox): boolean {
  return row.status === "starting" && row.started_at !== null;
}

const interrupted: StatusReason = {
  code: "create_interrupted",
  message: "The creation was cut short and the host does not have the sandbox.",
};

const notPaused: StatusReason = {
  code: "host_unavailable",
  message: "The host was asked to pause the sandbox, did not answer in time, and has not paused it.",
};

const notResumed: StatusReason = {
  code: "host_unavailable",
  message: "The host was asked to resume the sandbox, did not answer in time, and has not resumed it.",
};

function reasonOf(held: HeldSandbox): StatusReason {
  return held.death === undefined
    ? { code: "vm_died", message: "The virtual machine ended unexpectedly." }
    : { code: held.death.code, message: held.death.message };
}

function recoverableOf(held: HeldSandbox): RecoverySource[] {
  return recoverySources.filter((source) => held.recoverable.includes(source));
}

function removeOrphan(orphan: HeldSandbox): { do: "remove_orphan"; id: SandboxId } {
  return { do: "remove_orphan", id: orphan.sandboxId as SandboxId };
}
