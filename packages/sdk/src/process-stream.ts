/** A process in a sandbox as its events tell of it: output and end. Survives broken connections. */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { deadlines, guestAgentHeaders, processProto, type SignalName, startErrors, WrennError } from "@wrenn/contract";
import { CallSignal, delay, untilAborted, withLimits } from "./call-signal.ts";
import type { RequestOptions } from "./connection.ts";
import { failure } from "./errors.ts";
import { EventStream } from "./event-stream.ts";
import { type GuestConnection, guestFailure, statusTimeoutMs, userHeaders } from "./guest-connection.ts";

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

type ProcessEvents = EventStream<{ event?: processProto.ProcessEvent | undefined }>;

/** How following one stream of events went. */
type Outcome = { kind: "ended"; result: CommandResult } | { kind: "broken"; cause: unknown; eventCount: number };

const firstRetryMs = 100;
const longestRetryMs = 2_000;

export class ProcessStream {
  readonly pid: number;
  /** Resolves when the process has ended and all its output has been delivered. */
  readonly ended: Promise<CommandResult>;
  readonly #guest: GuestConnection;
  readonly #listener: ProcessListener;
  readonly #following: CallSignal;
  #events: ProcessEvents;

  private constructor(
    guest: GuestConnection,
    pid: number,
    events: ProcessEvents,
    listener: ProcessListener,
    signal: AbortSignal | undefined,
  ) {
    this.pid = pid;
    this.#guest = guest;
    this.#events = events;
    this.#listener = listener;
    this.#following = new CallSignal({ signal, what: `process ${pid}` });
    // Followed from the beginning, so that an end that comes before anybody waits is not missed.
    this.ended = this.#follow();
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
    // Not the RPC library's own deadline: that would also give up on this side, before the guest can say how it ended.
    if (options.timeoutMs !== undefined) headers.set("connect-timeout-ms", String(Math.ceil(options.timeoutMs)));
    const limits = limitsOf(guest, options, "the start of a command");
    return withLimits(limits, async ({ signal }) => {
      const events = new EventStream(headers, (call) => guest.processes.start(request, call));
      const first = firstEvent(events);
      try {
        return new ProcessStream(guest, await untilAborted(first, signal), events, listener, options.signal);
      } catch (error) {
        await killWhenStarted(guest, first);
        events.close();
        throw await guest.explainLoss(guestFailure(error, startErrors), signal);
      }
    });
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
    const limits = limitsOf(guest, options, `connecting to process ${process}`);
    return withLimits(limits, async ({ signal }) => {
      const events = openConnect(guest, process, options.replay);
      try {
        const pid = await untilAborted(firstEvent(events), signal);
        return new ProcessStream(guest, pid, events, listener, options.signal);
      } catch (error) {
        events.close();
        throw await guest.explainLoss(guestFailure(error), signal);
      }
    });
  }

  async #follow(): Promise<CommandResult> {
    try {
      const result = await this.#readAll();
      await this.#listener.finish();
      return result;
    } catch (error) {
      this.#events.close();
      throw this.#following.explain(error);
    } finally {
      this.#following.release();
    }
  }

  async #readAll(): Promise<CommandResult> {
    const { signal } = this.#following;
    let outcome = await this.#read();
    let givesUpAt = performance.now() + deadlines.commandReconnect;
    for (let retryMs = firstRetryMs; outcome.kind === "broken"; retryMs = Math.min(retryMs * 2, longestRetryMs)) {
      signal.throwIfAborted();
      if ((await this.#assertWorthRetrying(outcome.cause, givesUpAt)) === "settling") {
        givesUpAt = performance.now() + deadlines.commandReconnect;
      }
      await delay(retryMs, signal);
      this.#events = openConnect(this.#guest, this.pid, false);
      outcome = await this.#read();
      if (outcome.kind === "broken" && outcome.eventCount > 0) {
        givesUpAt = performance.now() + deadlines.commandReconnect;
        retryMs = firstRetryMs;
      }
    }
    return outcome.result;
  }

  async #read(): Promise<Outcome> {
    const { signal } = this.#following;
    for (let eventCount = 0; ; eventCount += 1) {
      let next: Awaited<ReturnType<ProcessEvents["next"]>>;
      try {
        next = await untilAborted(this.#events.next(), signal);
      } catch (cause) {
        return { kind: "broken", cause, eventCount };
      }
      if (next.done === true) return { kind: "broken", cause: new Error("the stream ended early"), eventCount };
      const event = next.value.event?.event;
      switch (event?.case) {
        case "data":
          await untilAborted(this.#deliver(event.value), signal);
          break;
        case "end":
          this.#events.finish();
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

  async #deliver({ output }: processProto.ProcessEvent_DataEvent): Promise<void> {
    if (output.value === undefined) return;
    await this.#listener.deliver(output.case === "stderr" ? "stderr" : "stdout", output.value);
  }

  /**
   * Throws when trying again is pointless: the sandbox is paused, it or the process is gone, or it has been tried for long enough. A
   * sandbox that is `settling` will be one of these, or run: the time until then does not count.
   */
  async #assertWorthRetrying(cause: unknown, givesUpAt: number): Promise<"running" | "settling"> {
    const error = guestFailure(cause, { [Code.NotFound]: "process_not_found" });
    if (error.code === "process_not_found") throw error;
    try {
      const { signal } = this.#following;
      const status = await this.#guest.assertRunning({ signal, requestTimeoutMs: statusTimeoutMs });
      if (status === "settling") return status;
    } catch (reason) {
      this.#following.signal.throwIfAborted();
      if (!(reason instanceof WrennError) || !reason.retryable) throw reason;
    }
    if (performance.now() > givesUpAt) {
      throw error.code === "connection_lost" ? error : failure("connection_lost", { cause: error });
    }
    return "running";
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

function openConnect(guest: GuestConnection, process: number | string, replay: boolean): ProcessEvents {
  const headers = new Headers();
  if (replay) headers.set(guestAgentHeaders.replayOutput, "true");
  return new EventStream(headers, (call) => guest.processes.connect({ process: selectorOf(process) }, call));
}

async function firstEvent(events: ProcessEvents): Promise<number> {
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
