/** A process in a sandbox as its events tell of it: output and end. Survives broken connections. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { deadlines, guestAgentHeaders, processProto, type SignalName, startErrors, WrennError } from "@wrenn/contract";
import { CallSignal, delay, untilAborted, withLimits } from "./call-signal.ts";
import type { RequestOptions } from "./connection.ts";
import { failure } from "./errors.ts";
import { type GuestConnection, guestFailure, userHeaders } from "./guest-connection.ts";

/** How a process ended. */
export interface CommandResult {
  /** As a shell reports it: the exit status, or 128 + signal number. */
  exitCode: number;
  /** True when it exited by itself, false when a signal ended it. */
  exited: boolean;
  /** Its `timeoutMs` passed, and it was killed with its whole process group. */
  timedOut: boolean;
  /** The guest kernel's out-of-memory killer ended it. */
  oomKilled: boolean;
}

/** Who listens to a process. What `deliver` returns is awaited before more is read. */
export interface ProcessListener {
  deliver(stream: "stdout" | "stderr", bytes: Uint8Array): void | Promise<void>;
  /** All output has been delivered. */
  finish(): void | Promise<void>;
  /** A broken connection was made again; output of the time in between may be missing. */
  onReconnect?: (() => void) | undefined;
}

export type StartRequest = MessageInitShape<typeof processProto.StartRequestSchema>;
type ProcessSelector = { case: "pid"; value: number } | { case: "tag"; value: string };

interface EventStream {
  next(): Promise<IteratorResult<{ event?: processProto.ProcessEvent | undefined }, unknown>>;
}

/** How following one stream of events went. */
type Outcome = { kind: "ended"; result: CommandResult } | { kind: "broken"; cause: unknown; eventCount: number };

/** Seconds. Below the five minutes of silence after which HTTP clients and proxies give up on a stream. */
const keepalivePingSeconds = 50;

const firstRetryMs = 100;
const longestRetryMs = 2_000;

export class ProcessStream {
  readonly pid: number;
  /** Resolves when the process has ended and all its output has been delivered. */
  readonly ended: Promise<CommandResult>;
  readonly #guest: GuestConnection;
  readonly #listener: ProcessListener;
  readonly #following: CallSignal;
  readonly #stream: AbortController;

  private constructor(
    guest: GuestConnection,
    pid: number,
    events: EventStream,
    stream: AbortController,
    listener: ProcessListener,
    signal: AbortSignal | undefined,
  ) {
    this.pid = pid;
    this.#guest = guest;
    this.#listener = listener;
    this.#stream = stream;
    this.#following = new CallSignal({ signal, what: `process ${pid}` });
    // Followed from the beginning, so that an end that comes before anybody waits is not missed.
    this.ended = this.#follow(events);
    // Whoever waits is told; that nobody does is no error.
    this.ended.catch(() => undefined);
  }

  /**
   * Starts a process and resolves once it runs. One that is given up before is killed: nobody would know of it.
   * @param options `signal` ends following the process, `timeoutMs` is the process's own
   */
  static async start(
    guest: GuestConnection,
    request: StartRequest,
    listener: ProcessListener,
    options: RequestOptions & { user?: string | undefined; timeoutMs?: number | undefined },
  ): Promise<ProcessStream> {
    const headers = userHeaders(options.user);
    headers.set("keepalive-ping-interval", String(keepalivePingSeconds));
    // Not the RPC library's own deadline: that would also give up on this side, before the guest can say how it ended.
    if (options.timeoutMs !== undefined) headers.set("connect-timeout-ms", String(Math.ceil(options.timeoutMs)));
    const stream = new AbortController();
    const events = guest.processes.start(request, { headers, signal: stream.signal })[Symbol.asyncIterator]();
    const first = firstEvent(events);
    const what = "the start of a command";
    try {
      const pid = await withLimits(limitsOf(guest, options, what), ({ signal }) => untilAborted(first, signal));
      return new ProcessStream(guest, pid, events, stream, listener, options.signal);
    } catch (error) {
      await killWhenStarted(guest, first);
      stream.abort();
      throw error instanceof WrennError || options.signal?.aborted === true ? error : guestFailure(error, startErrors);
    }
  }

  /**
   * Joins a process that runs, or that ended within the last 30 seconds.
   * @throws CommandError `process_not_found`
   */
  static async connect(
    guest: GuestConnection,
    process: number | string,
    listener: ProcessListener,
    options: RequestOptions & { replay: boolean },
  ): Promise<ProcessStream> {
    const headers = new Headers({ "keepalive-ping-interval": String(keepalivePingSeconds) });
    if (options.replay) headers.set(guestAgentHeaders.replayOutput, "true");
    const stream = new AbortController();
    const { signal } = stream;
    const responses = guest.processes.connect({ process: selectorOf(process) }, { headers, signal });
    const events = responses[Symbol.asyncIterator]();
    const limits = limitsOf(guest, options, `connecting to process ${process}`);
    try {
      const pid = await withLimits(limits, ({ signal }) => untilAborted(firstEvent(events), signal));
      return new ProcessStream(guest, pid, events, stream, listener, options.signal);
    } catch (error) {
      stream.abort();
      throw error instanceof WrennError || options.signal?.aborted === true ? error : guestFailure(error);
    }
  }

  async #follow(first: EventStream): Promise<CommandResult> {
    const { signal } = this.#following;
    const stop = (): void => {
      this.#stream.abort(signal.reason);
    };
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    try {
      const result = await this.#followAll(first);
      await this.#listener.finish();
      return result;
    } catch (error) {
      this.#stream.abort();
      throw this.#following.explain(error);
    } finally {
      this.#following.release();
    }
  }

  async #followAll(first: EventStream): Promise<CommandResult> {
    const { signal } = this.#following;
    let outcome = await this.#read(first);
    let givesUpAt = performance.now() + deadlines.commandReconnect;
    for (let retryMs = firstRetryMs; outcome.kind === "broken"; retryMs = Math.min(retryMs * 2, longestRetryMs)) {
      signal.throwIfAborted();
      await this.#assertWorthRetrying(outcome.cause, givesUpAt);
      await delay(retryMs, signal);
      outcome = await this.#read(this.#reconnect());
      if (outcome.kind === "broken" && outcome.eventCount > 0) {
        givesUpAt = performance.now() + deadlines.commandReconnect;
        retryMs = firstRetryMs;
      }
    }
    return outcome.result;
  }

  #reconnect(): EventStream {
    const headers = { "keepalive-ping-interval": String(keepalivePingSeconds) };
    const request = { process: selectorOf(this.pid) };
    return this.#guest.processes.connect(request, { headers, signal: this.#stream.signal })[Symbol.asyncIterator]();
  }

  async #read(events: EventStream): Promise<Outcome> {
    for (let eventCount = 0; ; eventCount += 1) {
      let next: Awaited<ReturnType<EventStream["next"]>>;
      try {
        next = await events.next();
      } catch (cause) {
        return { kind: "broken", cause, eventCount };
      }
      if (next.done === true) return { kind: "broken", cause: new Error("the stream ended early"), eventCount };
      const event = next.value.event?.event;
      switch (event?.case) {
        case "data": {
          const { case: stream, value } = event.value.output;
          if (value !== undefined) {
            // Aborted while what listens is still busy, the stream has nothing more to say to it.
            await untilAborted(this.#deliver(stream === "stderr" ? stream : "stdout", value), this.#following.signal);
          }
          break;
        }
        case "end":
          // Read to its end, the stream leaves a connection that can be used again.
          void events.next().catch(() => undefined);
          return { kind: "ended", result: toResult(event.value) };
        case "start":
          // The first stream's start was read before; one here is a broken connection made again.
          this.#listener.onReconnect?.();
          break;
        case "keepalive":
        case undefined:
          break;
      }
    }
  }

  async #deliver(stream: "stdout" | "stderr", bytes: Uint8Array): Promise<void> {
    await this.#listener.deliver(stream, bytes);
  }

  /** Throws when trying again is pointless: the sandbox or the process is gone, or it has been tried for long enough. */
  async #assertWorthRetrying(cause: unknown, givesUpAt: number): Promise<void> {
    const error = guestFailure(cause, { [Code.NotFound]: "process_not_found" });
    if (error.code === "process_not_found") throw error;
    try {
      await this.#guest.assertRunning(this.#following.signal);
    } catch (reason) {
      this.#following.signal.throwIfAborted();
      if (!(reason instanceof WrennError) || !reason.retryable) throw reason;
    }
    if (performance.now() > givesUpAt) {
      throw error.code === "connection_lost" ? error : failure("connection_lost", { cause: error });
    }
  }
}

export function selectorOf(process: number | string): { selector: ProcessSelector } {
  return {
    selector: typeof process === "number" ? { case: "pid", value: process } : { case: "tag", value: process },
  };
}

function limitsOf(guest: GuestConnection, options: RequestOptions, what: string) {
  return { signal: options.signal, timeoutMs: guest.connection.timeoutMs(options), what };
}

async function firstEvent(events: EventStream): Promise<number> {
  const first = await events.next();
  const event = first.done === true ? undefined : first.value.event?.event;
  if (event?.case !== "start") throw new Error("the stream did not begin with the process's start");
  return event.value.pid;
}

/** The process of a start that was given up, should it still come to run. */
async function killWhenStarted(guest: GuestConnection, first: Promise<number>): Promise<void> {
  const limits = { timeoutMs: deadlines.commandInterrupt, what: "the start of a command" };
  try {
    const pid = await withLimits(limits, ({ signal }) => untilAborted(first, signal));
    await sendSignal(guest, pid, "SIGKILL", { requestTimeoutMs: deadlines.commandInterrupt });
  } catch {
    // It never ran, or nobody can be reached to end it: what the caller is told is why the start was given up.
  }
}

/** Resolves with whether there was such a process. */
export async function sendSignal(
  guest: GuestConnection,
  process: number | string,
  signal: SignalName,
  options: RequestOptions,
): Promise<boolean> {
  const request = { process: selectorOf(process), signal: processProto.Signal[signal] };
  try {
    await guest.call({ ...options, what: `sending ${signal}` }, (call) => guest.processes.sendSignal(request, call));
    return true;
  } catch (error) {
    if (error instanceof WrennError && error.code === "process_not_found") return false;
    throw error;
  }
}

function toResult(end: processProto.ProcessEvent_EndEvent): CommandResult {
  return {
    exitCode: end.exitCode,
    exited: end.exited,
    timedOut: end.timedOut ?? false,
    oomKilled: end.oomKilled ?? false,
  };
}
