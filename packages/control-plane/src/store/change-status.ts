/** The only function that changes a sandbox's status: a compare-and-set whose event is written by the same statement. */
import { isTransitional, mayBecome, newId, WrennError } from "@wrenn/contract";
import type { MemoryBackend, RecoverySource, SandboxId, SandboxStatus } from "@wrenn/contract";
import { sql } from "kysely";
import type { RawBuilder } from "kysely";
import { timeIn } from "./database.ts";
import type { Store } from "./database.ts";
import { sandboxColumns } from "./schema.ts";
import type { SandboxRow } from "./schema.ts";

export interface StatusReason {
  readonly code: string;
  readonly message: string;
}

export interface StatusChange {
  /** The row as it was read; only its id, status and version matter. */
  readonly from: { readonly id: SandboxId; readonly status: SandboxStatus; readonly version: number };
  readonly to: SandboxStatus;
  readonly reason?: StatusReason | null;
  /** What it was started by and on, when that is told. */
  readonly machine?: Pick<SandboxRow, "engine" | "engine_version" | "engine_reason" | "cpu" | "disk_format">;
  /** How it has its memory now; what was known is kept until it stops running. */
  readonly memoryBackend?: MemoryBackend | null;
  /** What is kept of a dead one. Only for `error`. */
  readonly recoverable?: readonly RecoverySource[];
  readonly startedAt?: Date;
  /** When a transitional status is looked into. Required for those, refused for others. */
  readonly deadlineMs?: number;
  /** What else must be true of the row at the moment of the change. */
  readonly onlyIf?: RawBuilder<boolean>;
}

/** After a pause that has failed, the next one for being idle is tried after this, and twice as long after each further failure. */
const pauseRetrySeconds = { first: 30, longest: 600 };

/** In these the virtual machine is there, whatever is being done with it. */
const withMemory: ReadonlySet<SandboxStatus> = new Set(["running", "snapshotting", "pausing", "missing"]);
/** Left for `running`, these leave what was recorded of its use as it is. */
const inUse: ReadonlySet<SandboxStatus> = new Set(["snapshotting", "pausing"]);

/**
 * Returns the row as it is after the change, or null when it was changed by somebody else since it was read, or is not as
 * `onlyIf` demands.
 * @throws WrennError `internal` for a change the state machine does not have.
 */
export async function changeStatus(store: Store, change: StatusChange): Promise<SandboxRow | null> {
  const { from, to } = change;
  if (!mayBecome(from.status, to) || isTransitional(to) !== (change.deadlineMs !== undefined)) {
    throw new WrennError("internal", { message: `A sandbox cannot go from ${from.status} to ${to} like this.` });
  }
  const reason = change.reason ?? null;
  const ends = to === "stopped" || to === "error";
  if (change.recoverable !== undefined && to !== "error") {
    throw new WrennError("internal", { message: `A sandbox that is ${to} has nothing to be recovered from.` });
  }
  const row = await store
    .with("changed", (with_) =>
      with_
        .updateTable("sandboxes")
        .set((eb) => ({
          status: to,
          version: eb("version", "+", 1),
          deadline_at: change.deadlineMs === undefined ? null : timeIn(change.deadlineMs),
          // A sandbox that is stopped or paused keeps the reason for which it was being stopped or paused.
          ...((to === "stopped" || (to === "paused" && from.status === "pausing")) && reason === null
            ? {}
            : { status_reason_code: reason?.code ?? null, status_reason_message: reason?.message ?? null }),
          ...change.machine,
          ...(change.startedAt === undefined ? {} : { started_at: change.startedAt }),
          // While it did not run nobody could use it.
          ...(to === "running" && !inUse.has(from.status) ? { last_active_at: sql<Date>`now()` } : {}),
          ...(to === "running" && from.status === "pausing" ? failedPause : {}),
          ...(to === "paused"
            ? { paused_at: sql<Date>`coalesce(paused_at, now())`, pause_failures: 0, pause_retry_at: null }
            : {}),
          ...(to === "running" || ends ? { paused_at: null } : {}),
          ...(change.memoryBackend === undefined ? {} : { memory_backend: change.memoryBackend }),
          ...(withMemory.has(to) ? {} : { memory_backend: null }),
          recoverable: [...(change.recoverable ?? [])],
          ended_at: ends ? sql<Date>`coalesce(ended_at, now())` : null,
        }))
        .where("id", "=", from.id)
        .where("status", "=", from.status)
        .where("version", "=", from.version)
        .where(change.onlyIf ?? sql<boolean>`true`)
        .returning(sandboxColumns),
    )
    .with("event", (with_) =>
      with_
        .insertInto("sandbox_events")
        .columns(["id", "sandbox_id", "version", "from_status", "to_status", "reason_code", "reason_message"])
        .expression((eb) =>
          eb
            .selectFrom("changed")
            .select((select) => [
              select.val(newId("event")).as("id"),
              "changed.id as sandbox_id",
              "changed.version",
              sql<string>`${from.status}::text`.as("from_status"),
              "changed.status as to_status",
              "changed.status_reason_code as reason_code",
              "changed.status_reason_message as reason_message",
            ]),
        ),
    )
    .selectFrom("changed")
    .selectAll()
    .executeTakeFirst();
  return row ?? null;
}

const failedPause = {
  pause_failures: sql<number>`least(pause_failures + 1, 30)`,
  pause_retry_at: sql<Date>`now() + interval '1 second'
    * least(${pauseRetrySeconds.first} * 2 ^ pause_failures, ${pauseRetrySeconds.longest})`,
};
