/** A process in a sandbox that somebody follows: its output to the end, its input, its terminal, signals. */
import { Code, ConnectError } from "@connectrpc/connect";
import { deadlines, errorFromGuest, followErrors, processProto, WrennError } from "@wrenn/contract";
import type { GuestErrorMeanings, ProcessEnd, SignalName, streamChannels } from "@wrenn/contract";
import type { Guest } from "./guests.ts";
import type { SandboxLosses } from "./sandbox-losses.ts";

export type OutputChannel = Exclude<keyof typeof streamChannels, "stdin">;

export type FollowedEvent =
  | { readonly kind: "output"; readonly channel: OutputChannel; readonly bytes: Uint8Array }
  | { readonly kind: "end"; readonly end: ProcessEnd };

/** Where a process reads; a process that others have started may read at either. */
export type InputKind = "stdin" | "pty";

export interface Following {
  readonly guest: Guest;
  readonly losses: SandboxLosses;
  readonly tag: string | null;
  readonly inputKinds: readonly InputKind[];
}

interface GuestMessage {
  readonly event?: processProto.ProcessEvent | undefined;
}

export class FollowedProcess {
  readonly pid: number;
  readonly tag: string | null;
  readonly #guest: Guest;
  readonly #losses: SandboxLosses;
  readonly #events: AsyncIterator<GuestMessage>;
  readonly #left: AbortController;
  #inputKinds: readonly InputKind[];

  private constructor(pid: number, following: Following, events: AsyncIterator<GuestMessage>, left: AbortController) {
    this.pid = pid;
    this.tag = following.tag;
    this.#guest = following.guest;
    this.#losses = following.losses;
    this.#inputKinds = following.inputKinds;
    this.#events = events;
    this.#left = left;
  }

  /**
   * Follows the process whose events `open` asks the guest agent for.
   * @param meanings what the agent's codes mean to that call
   */
  static async open(
    following: Following,
    open: (signal: AbortSignal) => AsyncIterable<GuestMessage>,
    meanings: GuestErrorMeanings,
  ): Promise<FollowedProcess> {
    const left = new AbortController();
    const late = setTimeout(() => {
      left.abort(new WrennError("guest_timeout"));
    }, deadlines.guestCall);
    try {
      const events = open(left.signal)[Symbol.asyncIterator]();
      const first = await events.next();
      const event = first.done === true ? undefined : first.value.event?.event;
      if (event?.case !== "start") throw new Error("the stream did not begin with the process's start");
      return new FollowedProcess(event.value.pid, following, events, left);
    } catch (error) {
      const reason: unknown = left.signal.aborted ? left.signal.reason : error;
      left.abort();
      throw await following.losses.explain(following.guest, errorFromGuest(reason, meanings));
    } finally {
      clearTimeout(late);
    }
  }

  /**
   * Output in the order in which the guest agent read it, then the end, which is the last. The agent reads on only as fast as this is
   * taken. Ends without an end after `leave`.
   * @throws WrennError `connection_lost`, or why the sandbox died
   */
  async *events(): AsyncGenerator<FollowedEvent, void, undefined> {
    for (;;) {
      const event = await this.#next();
      if (event === null) return;
      switch (event.case) {
        case "data": {
          const { case: stream, value } = event.value.output;
          if (value !== undefined)
            yield { kind: "output", channel: stream === "stderr" ? "stderr" : "stdout", bytes: value };
          break;
        }
        case "end":
          // Read to its end, the stream leaves a connection that can be used again.
          void this.#events.next().catch(() => undefined);
          yield { kind: "end", end: asProcessEnd(event.value) };
          return;
        case "start":
        case "keepalive":
        case undefined:
          break;
      }
    }
  }

  /**
   * Resolves once the process's pipe or terminal has taken everything. False when it reads no more, or has ended: its end, if that is
   * why, is about to be told.
   */
  async write(bytes: Uint8Array): Promise<boolean> {
    for (const kind of this.#inputKinds) {
      const input = { input: { case: kind, value: bytes } };
      if (
        await this.#taken((options) => this.#guest.processes.sendInput({ process: this.#selector, input }, options))
      ) {
        this.#inputKinds = [kind];
        return true;
      }
    }
    return false;
  }

  /**
   * The process reads end of file.
   * @throws WrennError `guest_refused` when it has a terminal, or no input
   */
  async closeInput(): Promise<void> {
    await this.#unlessEnded((options) => this.#guest.processes.closeStdin({ process: this.#selector }, options));
  }

  /** @throws WrennError `guest_refused` when it has no terminal */
  async resize({ cols, rows }: { readonly cols: number; readonly rows: number }): Promise<void> {
    const request = { process: this.#selector, pty: { size: { cols, rows } } };
    await this.#unlessEnded((options) => this.#guest.processes.update(request, options));
  }

  /** To its process group; SIGKILL to everything that it has started. */
  async signal(name: SignalName): Promise<void> {
    const request = { process: this.#selector, signal: processProto.Signal[name] };
    await this.#unlessEnded((options) => this.#guest.processes.sendSignal(request, options));
  }

  /** Follows no longer. The process goes on. */
  leave(): void {
    this.#left.abort();
  }

  get #selector() {
    return { selector: { case: "pid" as const, value: this.pid } };
  }

  /** Null after `leave`. */
  async #next(): Promise<processProto.ProcessEvent["event"] | null> {
    try {
      const next = await this.#events.next();
      if (next.done === true) throw new Error("the stream ended before the process did");
      return next.value.event?.event ?? { case: undefined };
    } catch (error) {
      if (this.#left.signal.aborted) return null;
      throw await this.#losses.explain(this.#guest, errorFromGuest(error, followErrors));
    }
  }

  async #taken(call: (options: { signal: AbortSignal }) => Promise<unknown>): Promise<boolean> {
    try {
      // However long the process takes to read it.
      await call({ signal: this.#left.signal });
      return true;
    } catch (error) {
      const code = error instanceof ConnectError ? error.code : undefined;
      if (code === Code.NotFound || code === Code.FailedPrecondition || this.#left.signal.aborted) return false;
      throw await this.#losses.explain(this.#guest, errorFromGuest(error));
    }
  }

  async #unlessEnded(call: (options: { timeoutMs: number }) => Promise<unknown>): Promise<void> {
    try {
      await call({ timeoutMs: deadlines.guestCall });
    } catch (error) {
      // How it ended is about to be told by its events.
      if (error instanceof ConnectError && error.code === Code.NotFound) return;
      throw await this.#losses.explain(this.#guest, errorFromGuest(error));
    }
  }
}

function asProcessEnd({ exitCode, exited, timedOut, oomKilled }: processProto.ProcessEvent_EndEvent): ProcessEnd {
  return { exit_code: exitCode, exited, timed_out: timedOut ?? false, oom_killed: oomKilled ?? false };
}
