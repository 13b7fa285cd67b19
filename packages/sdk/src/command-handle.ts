/** A command that runs in a sandbox: its input, its end. */
import type { SignalName } from "@wrenn/contract";
import type { RequestOptions } from "./connection.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { InputQueue } from "./input-queue.ts";
import { type CommandResult, type ProcessStream, selectorOf, sendSignal } from "./process-stream.ts";

export class CommandHandle {
  readonly pid: number;
  /** The name it was started or found with; null when it has none. */
  readonly tag: string | null;
  readonly #guest: GuestConnection;
  readonly #process: ProcessStream;
  readonly #signal: AbortSignal | undefined;
  readonly #input: InputQueue;

  /** Made by `sandbox.commands`. */
  constructor(
    guest: GuestConnection,
    process: ProcessStream,
    options: { tag: string | null; signal: AbortSignal | undefined },
  ) {
    this.pid = process.pid;
    this.tag = options.tag;
    this.#guest = guest;
    this.#process = process;
    this.#signal = options.signal;
    this.#input = new InputQueue((value) => {
      const request = { process: selectorOf(this.pid), input: { input: { case: "stdin" as const, value } } };
      return this.#call((call) => guest.processes.sendInput(request, call));
    });
  }

  /**
   * Resolves when the command has ended and all its output has been handed out.
   * @throws WrennError why the sandbox is gone (`guest_panicked`, `vm_died`, `sandbox_not_found`), or `connection_lost`
   * when it could not be reached again for 30 seconds; what a listener threw; the reason of the signal.
   */
  async wait(): Promise<CommandResult> {
    return this.#process.ended;
  }

  /**
   * Writes to the command's standard input. Resolves once the sandbox has taken it, which may be when the command reads. Calls
   * keep their order and need not be awaited one by one. Never sent twice.
   * @throws CommandError `process_not_found` when the command has ended; GuestError `guest_refused` when it has no standard
   * input or has closed it; ConnectionError `connection_lost` when it is not known whether the bytes arrived
   */
  async sendStdin(input: Uint8Array | string): Promise<void> {
    await this.#input.write(typeof input === "string" ? new TextEncoder().encode(input) : input);
  }

  /** The command reads end of file, behind all that was written before. Doing it twice is fine. */
  async closeStdin(): Promise<void> {
    await this.#input.settled();
    await this.#call((call) => this.#guest.processes.closeStdin({ process: selectorOf(this.pid) }, call));
  }

  /**
   * Sends a signal to the command and all its children; SIGKILL reaches also those that left its process group.
   * @param signal default `SIGKILL`
   * @returns false when the command has ended
   */
  async kill(signal: SignalName = "SIGKILL", options: RequestOptions = {}): Promise<boolean> {
    return sendSignal(this.#guest, this.pid, signal, options);
  }

  /** Input waits for the command to read it, for however long that takes. */
  async #call(send: Parameters<GuestConnection["call"]>[1]): Promise<void> {
    const what = `input of process ${this.pid}`;
    await this.#guest.call({ signal: this.#signal, what, unbounded: true }, send);
  }
}
