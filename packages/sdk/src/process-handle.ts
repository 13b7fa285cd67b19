/** What a command and a terminal have in common: a process that is followed, written to and signalled. */
import type { SignalName } from "@wrenn/contract";
import type { RequestOptions } from "./connection.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { InputQueue } from "./input-queue.ts";
import { type CommandResult, type ProcessStream, selectorOf, sendSignal } from "./process-stream.ts";

export interface HandleOptions {
  tag: string | null;
  /** Ends what waits for the process. */
  signal: AbortSignal | undefined;
}

export abstract class ProcessHandle {
  readonly pid: number;
  /** The name it was started or found with; null when it has none. */
  readonly tag: string | null;
  protected readonly guest: GuestConnection;
  protected readonly input: InputQueue;
  readonly #process: ProcessStream;
  readonly #signal: AbortSignal | undefined;

  constructor(guest: GuestConnection, process: ProcessStream, inputKind: "stdin" | "pty", options: HandleOptions) {
    this.pid = process.pid;
    this.tag = options.tag;
    this.guest = guest;
    this.#process = process;
    this.#signal = options.signal;
    this.input = new InputQueue(async (value) => {
      const request = { process: selectorOf(this.pid), input: { input: { case: inputKind, value } } };
      await this.callForInput((call) => guest.processes.sendInput(request, call));
    });
  }

  /**
   * Resolves when the process has ended and all its output has been handed out.
   * @throws ConflictError `sandbox_paused` when the sandbox was paused meanwhile: the process is kept, and can be followed again once it
   * is resumed; WrennError why the sandbox is gone (`guest_panicked`, `vm_died`, `sandbox_not_found`), or `connection_lost` when
   * it could not be reached again for 30 seconds; what a listener threw; the reason of the signal
   */
  async wait(): Promise<CommandResult> {
    return this.#process.ended;
  }

  /**
   * Sends a signal to the process and all its children; SIGKILL reaches also those that left its process group.
   * @param signal default `SIGKILL`
   * @returns false when it has ended
   */
  async kill(signal: SignalName = "SIGKILL", options: RequestOptions = {}): Promise<boolean> {
    return sendSignal(this.guest, this.pid, signal, options);
  }

  /** Input waits for the process to read it, for however long that takes. */
  protected async callForInput(send: Parameters<GuestConnection["call"]>[1]): Promise<void> {
    await this.guest.call({ signal: this.#signal, what: `input of process ${this.pid}`, unbounded: true }, send);
  }
}
