/** What ends one call early: its caller's signal, or the time it may take. Leaves no timer and no listener behind. */
import { failure } from "./errors.ts";

export interface CallLimits {
  /** The caller's. Its reason is what the call then fails with. */
  signal?: AbortSignal | undefined;
  /** Milliseconds; without it, as long as it takes. */
  timeoutMs?: number | undefined;
  /** Of what, for the error: `GET /v1/sandboxes`. */
  what: string;
}

/** Timers take no more: a longer one would fire at once. */
const longestTimerMs = 2_147_483_647;

export class CallSignal {
  // Not AbortSignal.any and .timeout: what `any` returns can be collected as garbage while it is waited for
  // (nodejs/node#57736), and the timer of `timeout` cannot be cleared.
  readonly #controller = new AbortController();
  readonly #limits: CallLimits;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(limits: CallLimits) {
    this.#limits = limits;
    if (limits.signal?.aborted === true) this.#follow();
    else {
      limits.signal?.addEventListener("abort", this.#follow, { once: true });
      this.restart();
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The time begins anew: there was progress. */
  restart(): void {
    const { timeoutMs } = this.#limits;
    clearTimeout(this.#timer);
    if (timeoutMs === undefined || this.signal.aborted) return;
    this.#timer = setTimeout(this.#expire, Math.min(timeoutMs, longestTimerMs));
  }

  /** From here on the call may take as long as it likes; the caller's signal still ends it. */
  lift(): void {
    clearTimeout(this.#timer);
  }

  /** Ends whatever is still under way for the call, which has failed. */
  abandon(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** To be called however the call ends. */
  release(): void {
    clearTimeout(this.#timer);
    this.#limits.signal?.removeEventListener("abort", this.#follow);
  }

  /** What a call that failed with `thrown` has to tell its caller: why it was ended, where that is what it failed of. */
  explain(thrown: unknown): unknown {
    return this.signal.aborted ? this.signal.reason : thrown;
  }

  readonly #follow = (): void => {
    this.#controller.abort(this.#limits.signal?.reason);
  };

  readonly #expire = (): void => {
    const { what, timeoutMs } = this.#limits;
    this.#controller.abort(
      failure("response_timeout", { message: `${what} was not answered within ${timeoutMs} ms.` }),
    );
  };
}

/** Runs one call under its limits. */
export async function withLimits<Value>(
  limits: CallLimits,
  work: (call: CallSignal) => Promise<Value>,
): Promise<Value> {
  const call = new CallSignal(limits);
  try {
    call.signal.throwIfAborted();
    return await work(call);
  } catch (error) {
    throw call.explain(error);
  } finally {
    call.release();
  }
}

/** Resolves as the promise does, or rejects with the signal's reason as soon as it aborts. */
export async function untilAborted<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  let abort = (): void => undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** Waits, or rejects with the signal's reason. */
export async function delay(milliseconds: number, signal: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const passed = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  try {
    await untilAborted(passed, signal);
  } finally {
    clearTimeout(timer);
  }
}
