/**
 * Work that ends early: when a signal is aborted, or when its time is up. Stands in for AbortSignal.any and AbortSignal.timeout: their
 * combination can be collected as garbage while somebody waits for it, and then never fires (nodejs/node#57736).
 */

/** Runs work with a signal that follows all of those given. */
export async function withSignals<Value>(
  signals: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<Value>,
): Promise<Value> {
  const controller = new AbortController();
  const follow = signals.map((signal) => ({ signal, listener: () => controller.abort(signal.reason) }));
  for (const { signal, listener } of follow) {
    if (signal.aborted) listener();
    signal.addEventListener("abort", listener, { once: true });
  }
  try {
    return await work(controller.signal);
  } finally {
    for (const { signal, listener } of follow) signal.removeEventListener("abort", listener);
  }
}

/** As `withSignals`, and aborted with `late()` when the time is up. */
export async function withTimeLimit<Value>(
  timeoutMs: number,
  late: () => Error,
  signals: readonly AbortSignal[],
  work: (signal: AbortSignal) => Promise<Value>,
): Promise<Value> {
  const limit = new AbortController();
  const timer = setTimeout(() => {
    limit.abort(late());
  }, timeoutMs);
  try {
    return await withSignals([...signals, limit.signal], work);
  } finally {
    clearTimeout(timer);
  }
}
