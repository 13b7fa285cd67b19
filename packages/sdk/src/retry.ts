/** Trying again what failed for a reason that passes by itself. Only for requests that may be sent twice. */
import { WrennError } from "@wrenn/contract";
import { delay } from "./call-signal.ts";
import { CapacityError } from "./errors.ts";

/** Milliseconds: the longest wait before the first retry; doubles with each. */
const firstBackoffMs = 200;
const longestBackoffMs = 5_000;
/** What a server may ask for; one that wants longer is not waited for. */
const longestRetryAfterMs = 30_000;

/** What an answer that refused said beside its error. */
interface Refusal {
  status: number;
  /** Milliseconds that its sender is asked to wait. */
  afterMs: number | null;
}

/** Kept beside the errors, which callers have no use of it in. */
const refusals = new WeakMap<WrennError, Refusal>();

/** Notes of the answer that became this error whether to come again, and when. */
export function noteRefusal(error: WrennError, { status, headers }: Response): WrennError {
  refusals.set(error, { status, afterMs: retryAfter(headers.get("retry-after")) });
  return error;
}

/** Seconds, or a date. */
function retryAfter(header: string | null): number | null {
  if (header === null) return null;
  const milliseconds = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - Date.now();
  return Number.isFinite(milliseconds) ? Math.max(0, milliseconds) : null;
}

/** Calls `attempt` until it succeeds, fails for good, or has failed `maxRetries` times more than once. */
export async function retrying<Value>(
  options: { maxRetries: number; signal: AbortSignal; onRetry?: (() => void) | undefined },
  attempt: () => Promise<Value>,
): Promise<Value> {
  for (let retries = 0; ; retries += 1) {
    try {
      return await attempt();
    } catch (error) {
      options.signal.throwIfAborted();
      const waitMs = retries < options.maxRetries ? waitBefore(error, retries) : null;
      if (waitMs === null) throw error;
      await delay(waitMs, options.signal);
      options.onRetry?.();
    }
  }
}

/** Milliseconds to wait before trying again; null when that is pointless. */
function waitBefore(error: unknown, retries: number): number | null {
  if (!(error instanceof WrennError)) return null;
  const backoffMs = jitter(Math.min(firstBackoffMs * 2 ** retries, longestBackoffMs));
  const refusal = refusals.get(error);
  // Never answered at all.
  if (refusal === undefined) return error.code === "server_unreachable" ? backoffMs : null;
  if (refusal.status !== 429 && refusal.status !== 503) return null;
  if (refusal.afterMs !== null) return refusal.afterMs > longestRetryAfterMs ? null : refusal.afterMs + backoffMs;
  // Room is made by people, who take longer than this.
  return error instanceof CapacityError ? null : backoffMs;
}

/** Between half of it and all of it, so that clients which failed together do not come back together. */
function jitter(milliseconds: number): number {
  return milliseconds * (0.5 + Math.random() / 2);
}
