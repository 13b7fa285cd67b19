/** A command that runs in a sandbox: its output, its input, its end. Survives broken connections. */
import { Code } from "@connectrpc/connect";
import { deadlines, errorFromGuest, processProto, WrennError } from "@wrenn/contract";
import type { CommandOptions, PtySize } from "./commands.ts";
import type { GuestConnection } from "./guest-connection.ts";

export type OutputListener = (bytes: Uint8Array) => void | Promise<void>;

export type CommandSignal =
  | "SIGHUP"
  | "SIGINT"
  | "SIGQUIT"
  | "SIGKILL"
  | "SIGUSR1"
  | "SIGUSR2"
  | "SIGTERM"
  | "SIGCONT"
  | "SIGSTOP";

export interface CommandResult {
  /** As a shell reports it: the exit status, or 128 + signal number. */
  exitCode: number;
  /** True when the command exited by itself, false when a signal ended it. */
  exited: boolean;
  /** The guest kernel's out-of-memory killer ended it. */
  oomKilled: boolean;
  /** Its `timeoutMs` passed. */
  timedOut: boolean;
  error?: string;
}

interface EventStream {
  next(): Promise<IteratorResult<{ event?: processProto.ProcessEvent | undefined }, unknown>>;
}

/** How following one stream of events went. */
type Outcome = { kind: "ended"; result: CommandResult } | { kind: "broken"; cause: unknown; eventCount: number };

const firstRetryMs = 100;
const longestRetryMs = 2_000;

export class CommandHandle {
  readonly pid: number;
  readonly #guest: GuestConnection;
  readonly #options: CommandOptions;
  readonly #signal: AbortSignal;
  readonly #result: Promise<CommandResult>;

  /** Made by `CommandsClient.start`. `events` is the stream behind its start event; `stop` follows the caller's signal. */
  constructor(
    guest: GuestConnection,
    pid: number,
    events: EventStream,
    stop: AbortController,
    options: CommandOptions,
  ) {
    this.pid = pid;
    this.#guest = guest;
    this.#options = options;
    this.#signal = stop.signal;
    // Followed from the beginning, so that an end that comes before `wait` is called is not missed.
    this.#result = this.#follow(events);
    this.#result.catch(() => {
      stop.abort();
    });
  }

  /**
   * Resolves when the command has ended and all its output has been handed out.
   * @throws WrennError why the sandbox is gone (`guest_panicked`, `vm_died`, `sandbox_not_found`), or `connection_lost`.
   */
  async wait(): Promise<CommandResult> {
    return this.#result;
  }

  /** Writes to the command's standard input, or its terminal. Resolves once the guest has taken it. */
  async sendStdin(bytes: Uint8Array): Promise<void> {
    const input = this.#options.pty === undefined ? ("stdin" as const) : ("pty" as const);
    const request = { process: this.#selector, input: { input: { case: input, value: bytes } } };
    await this.#call((options) => this.#guest.processes.sendInput(request, options));
  }

  /** The command reads end of file. */
  async closeStdin(): Promise<void> {
    await this.#call((options) => this.#guest.processes.closeStdin({ process: this.#selector }, options));
  }

  /** Sends a signal to the command. */
  async kill(signal: CommandSignal = "SIGKILL"): Promise<void> {
    const request = { process: this.#selector, signal: processProto.Signal[signal] };
    await this.#call((options) => this.#guest.processes.sendSignal(request, options));
  }

  /** Changes the size of the command's terminal. */
  async resize(size: PtySize): Promise<void> {
    const request = { process: this.#selector, pty: { size } };
    await this.#call((options) => this.#guest.processes.update(request, options));
  }

  get #selector() {
    return { selector: { case: "pid" as const, value: this.pid } };
  }

  async #call(send: (options: { signal: AbortSignal }) => Promise<unknown>): Promise<void> {
    try {
      await send({ signal: this.#signal });
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      throw errorFromGuest(error);
    }
  }

  async #follow(first: EventStream): Promise<CommandResult> {
    const signal = this.#options.signal;
    let outcome = await this.#read(first);
    let givesUpAt = performance.now() + deadlines.commandReconnect;
    for (let retryMs = firstRetryMs; outcome.kind === "broken"; retryMs = Math.min(retryMs * 2, longestRetryMs)) {
      signal?.throwIfAborted();
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
    const stream = this.#guest.processes.connect({ process: this.#selector }, { signal: this.#signal });
    return stream[Symbol.asyncIterator]();
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
        case "data":
          await this.#deliver(event.value);
          break;
        case "end":
          // Read to its end, the stream leaves a connection that can be used again.
          void events.next().catch(() => undefined);
          return { kind: "ended", result: toResult(event.value) };
        case "start":
          // The first stream's start was read before; one here is a broken connection made again.
          this.#options.onReconnect?.();
          break;
        case "keepalive":
        case undefined:
          break;
      }
    }
  }

  async #deliver(data: processProto.ProcessEvent_DataEvent): Promise<void> {
    const { case: stream, value } = data.output;
    if (value === undefined) return;
    await (stream === "stderr" ? this.#options.onStderr : this.#options.onStdout)?.(value);
  }

  /** Throws when trying again is pointless: the sandbox or the process is gone, or it has been tried for long enough. */
  async #assertWorthRetrying(cause: unknown, givesUpAt: number): Promise<void> {
    const error = errorFromGuest(cause, { [Code.NotFound]: "process_not_found" });
    if (error.code === "process_not_found") throw error;
    try {
      await this.#guest.assertRunning(this.#options.signal);
    } catch (reason) {
      this.#options.signal?.throwIfAborted();
      if (!(reason instanceof WrennError) || !reason.retryable) throw reason;
    }
    if (performance.now() > givesUpAt) {
      throw error.code === "connection_lost" ? error : new WrennError("connection_lost", { cause: error });
    }
  }
}

function toResult(end: processProto.ProcessEvent_EndEvent): CommandResult {
  return {
    exitCode: end.exitCode,
    exited: end.exited,
    oomKilled: end.oomKilled ?? false,
    timedOut: end.timedOut ?? false,
    ...(end.error === undefined ? {} : { error: end.error }),
  };
}

async function delay(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}
