/** Trying again what failed for a reason that passes by itself. Only for requests that may be sent twice. */
import { WrennError } from "@wrenn/contract";
import { delay } from "./call-signal.ts";
import { CapacityError } from "./errors.ts";

/** Milliseconds: the longest wait before the first retry; doubles with each. */
const firstBackoffMs = 200;
const longestBackoffMs = 5_000;
/** What a server may ask for; one that wants longer is not waited for. */
const longestRetryAfterMs = 30_000;

/** How long an answer asks to wait, in milliseconds. Kept beside the error, which callers have no use of it in. */
const retryAfter = new WeakMap<WrennError, number>();

/** Notes the `Retry-After` of the answer that became this error: seconds, or a date. */
export function noteRetryAfter(error: WrennError, response: Response): WrennError {
  const header = response.headers.get("retry-after");
  if (header === null) return error;
  const milliseconds = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - Date.now();
  if (Number.isFinite(milliseconds)) retryAfter.set(error, Math.max(0, milliseconds));
  return error;
}

/** Calls `attempt` until it succeeds, fails for good, or has failed `maxRetries` times more than once. */
export async function retrying<Value>(
  options: { maxRetries: number; signal: AbortSignal },
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
    }
  }
}

/** Milliseconds to wait before trying again; null when that is pointless. */
function waitBefore(error: unknown, retries: number): number | null {
  if (!(error instanceof WrennError)) return null;
  const asked = retryAfter.get(error);
  if (asked !== undefined) return asked > longestRetryAfterMs ? null : asked + jitter(firstBackoffMs);
  // Room is made by people, who take longer than this.
  const passes = error.status === 429 || (error.status === 503 && !(error instanceof CapacityError));
  return passes ? jitter(Math.min(firstBackoffMs * 2 ** retries, longestBackoffMs)) : null;
}

/** Between half of it and all of it, so that clients which failed together do not come back together. */
function jitter(milliseconds: number): number {
  return milliseconds * (0.5 + Math.random() / 2);
}
