/** Waiting for a condition, by looking again and again until a deadline. */
import { setTimeout as delay } from "node:timers/promises";

export interface PollOptions {
  timeoutMs: number;
  intervalMs?: number;
  signal?: AbortSignal;
}

/** The first value that is not null, or null when the deadline passed without one. */
export async function pollUntil<Value>(look: () => Promise<Value | null>, options: PollOptions): Promise<Value | null> {
  const deadline = performance.now() + options.timeoutMs;
  for (;;) {
    options.signal?.throwIfAborted();
    const value = await look();
    if (value !== null) return value;
    if (performance.now() >= deadline) return null;
    await delay(options.intervalMs ?? 10, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
}
