/** The only function that changes a sandbox's status: a compare-and-set whose event is written by the same statement. */
import { isTransitional, mayBecome, newId, WrennError } from "@wrenn/contract";
import type { SandboxId, SandboxStatus } from "@wrenn/contract";
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
  readonly engine?: string;
  readonly startedAt?: Date;
  /** When a transitional status is looked into. Required for those, refused for others. */
  readonly deadlineMs?: number;
  /** What else must be true of the row at the moment of the change. */
  readonly onlyIf?: RawBuilder<boolean>;
}

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
  const row = await store
    .with("changed", (with_) =>
      with_
        .updateTable("sandboxes")
        .set((eb) => ({
          status: to,
          version: eb("version", "+", 1),
          deadline_at: change.deadlineMs === undefined ? null : timeIn(change.deadlineMs),
          // A sandbox that is stopped keeps the reason for which it was being stopped.
          ...(to === "stopped" && reason === null
            ? {}
            : { status_reason_code: reason?.code ?? null, status_reason_message: reason?.message ?? null }),
          ...(change.engine === undefined ? {} : { engine: change.engine }),
          ...(change.startedAt === undefined ? {} : { started_at: change.startedAt }),
          // While it did not run nobody could use it.
          ...(to === "running" ? { last_active_at: sql<Date>`now()` } : {}),
          ...(ends ? { ended_at: sql<Date>`coalesce(ended_at, now())` } : {}),
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
