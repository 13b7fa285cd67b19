/**
 * Destroys sandboxes that nobody has used for their whole timeout. Whether one is idle is judged in the database, by its clock and
 * by records that are complete: as long as a replica may still have use to record, its sandboxes are not idle. A replica that has
 * been away is waited for, and after an outage callers get the time to return.
 */
import { intervals } from "@wrenn/contract";
import type { Logger } from "pino";
import type { Activity } from "../services/activity.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import { findIdleSandboxes, removeSilentReplicas } from "../store/activity.ts";
import type { IdleSandbox } from "../store/activity.ts";
import type { Store } from "../store/database.ts";

export interface IdleSandboxesOptions {
  readonly store: Store;
  readonly sandboxes: Sandboxes;
  readonly activity: Activity;
  readonly log: Logger;
  /** A replica that was silent for so long, while this one was not, is gone. */
  readonly replicaSilenceMs: number;
}

/** Sandboxes destroyed at once. The rest follow in the next round. */
const batch = 50;

/** One round. Safe beside those of other replicas: of two that find the same sandbox one destroys it. */
export async function destroyIdleSandboxes(options: IdleSandboxesOptions, signal: AbortSignal): Promise<void> {
  const { store, activity, log, replicaSilenceMs } = options;
  const contactMs = activity.contactMs();
  if (contactMs === null) return;
  if (contactMs > replicaSilenceMs) {
    const gone = await removeSilentReplicas(store, replicaSilenceMs);
    if (gone.length > 0) log.warn({ replicas: gone }, "another server has gone without a word");
  }
  // After an outage or a restart, who uses a sandbox often enough to keep it has had no chance to before its timeout has passed.
  const longestTimeoutMs = contactMs < intervals.sandboxTimeoutsResume ? contactMs : Infinity;
  const idle = await findIdleSandboxes(store, { longestTimeoutMs, limit: batch });
  if (signal.aborted) return;
  await Promise.all(idle.map(async (sandbox) => destroyOne(options, sandbox)));
}

async function destroyOne({ sandboxes, log }: IdleSandboxesOptions, sandbox: IdleSandbox): Promise<void> {
  try {
    await sandboxes.destroyIdle(sandbox);
  } catch (error) {
    log.error({ sandboxId: sandbox.id, err: error }, "could not destroy an idle sandbox; the reconciler will");
  }
}
