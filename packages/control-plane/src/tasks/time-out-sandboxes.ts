/**
 * Pauses or destroys sandboxes that nobody has used for their whole timeout. Whether one is idle is judged in the database, by its clock and
 * by records that are complete: as long as a replica may still have use to record, its sandboxes are not idle. A replica that has
 * been away is waited for, and after an outage callers get the time to return.
 */
import type { Logger } from "pino";
import type { Activity } from "../services/activity.ts";
import type { Freezing } from "../services/freezing.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import { findIdleSandboxes, removeSilentReplicas } from "../store/activity.ts";
import type { IdleSandbox } from "../store/activity.ts";
import type { Store } from "../store/database.ts";

export interface TimeOutOptions {
  readonly store: Store;
  readonly sandboxes: Sandboxes;
  readonly freezing: Freezing;
  readonly activity: Activity;
  readonly log: Logger;
  /** A replica that was silent for so long, while this one was not, is gone. */
  readonly replicaSilenceMs: number;
  /** After an outage or a restart: what uses a sandbox often enough to keep it has had no chance to before so long has passed. */
  readonly resumeMs: number;
}

/** Sandboxes paused or destroyed at once. The rest follow in the next round. */
const batch = 20;

/** One round. Safe beside those of other replicas: of two that find the same sandbox one acts on it. */
export async function timeOutSandboxes(options: TimeOutOptions, signal: AbortSignal): Promise<void> {
  const { store, activity, log, replicaSilenceMs, resumeMs } = options;
  const contactMs = activity.contactMs();
  if (contactMs === null) return;
  if (contactMs > replicaSilenceMs) {
    const gone = await removeSilentReplicas(store, replicaSilenceMs);
    if (gone.length > 0) log.warn({ replicas: gone }, "another server has gone without a word");
  }
  const longestTimeoutMs = contactMs < resumeMs ? contactMs : Infinity;
  const idle = await findIdleSandboxes(store, { longestTimeoutMs, limit: batch });
  if (signal.aborted) return;
  await Promise.all(idle.map(async (sandbox) => timeOutOne(options, sandbox)));
}

async function timeOutOne({ sandboxes, freezing, log }: TimeOutOptions, sandbox: IdleSandbox): Promise<void> {
  try {
    if (sandbox.on_timeout === "pause") await freezing.pauseIdle(sandbox);
    else await sandboxes.destroyIdle(sandbox);
  } catch (error) {
    log.error(
      { sandboxId: sandbox.id, onTimeout: sandbox.on_timeout, err: error },
      "could not end what nobody uses; it is tried again",
    );
  }
}
