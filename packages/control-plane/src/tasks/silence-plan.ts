/** What becomes of the sandboxes of a host that stays away. Decides and does nothing, as reconciliation-plan.ts does for hosts that answer. */
import type { StatusReason } from "../store/change-status.ts";
import { isRecovery } from "./reconciliation-plan.ts";
import type { Action, ExpectedSandbox } from "./reconciliation-plan.ts";

/**
 * What its sandboxes are is not known, and is seen when the host is back: until then they are missing. What it was asked to do is waited for
 * until its time is up. A sandbox that has never run is nobody's yet: its creation has failed.
 */
export function planForSilence<Row extends ExpectedSandbox>(rows: readonly Row[]): Action<Row>[] {
  return rows.flatMap((row): Action<Row> | [] => {
    switch (row.status) {
      case "running":
        return { do: "mark_missing", row, reason: silent };
      case "snapshotting":
      case "pausing":
      case "resuming":
        return row.overdue ? { do: "mark_missing", row, reason: silent } : [];
      case "pending":
      case "starting":
        if (!row.overdue) return [];
        return isRecovery(row)
          ? { do: "mark_missing", row, reason: silent }
          : { do: "mark_failed", row, reason: silentSinceCreate };
      case "missing":
      case "paused":
      case "stopping":
      case "stopped":
      case "error":
        break;
    }
    return [];
  });
}

const silent: StatusReason = { code: "host_unavailable", message: "The sandbox's host does not answer." };

const silentSinceCreate: StatusReason = {
  code: "host_unavailable",
  message: "The host does not answer; whatever it has made of the sandbox is destroyed once it does.",
};
