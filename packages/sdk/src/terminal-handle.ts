/** A terminal that runs in a sandbox: what is typed into it, its size, its end. */
import type { SignalName } from "@wrenn/contract";
import type { RequestOptions } from "./connection.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { InputQueue } from "./input-queue.ts";
import { type CommandResult, type ProcessStream, selectorOf, sendSignal } from "./process-stream.ts";

/** Each 1 to 65535. */
export interface TerminalSize {
  cols: number;
  rows: number;
}

export class TerminalHandle {
  readonly pid: number;
  /** The name it was started or found with; null when it has none. */
  readonly tag: string | null;
  readonly #guest: GuestConnection;
  readonly #process: ProcessStream;
  readonly #signal: AbortSignal | undefined;
  readonly #input: InputQueue;

  /** Made by `sandbox.pty`. */
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
      const request = { process: selectorOf(this.pid), input: { input: { case: "pty" as const, value } } };
      const what = `input of terminal ${this.pid}`;
      // Waits for the program to read, for however long that takes.
      return guest.call({ signal: this.#signal, what, unbounded: true }, (call) =>
        guest.processes.sendInput(request, call),
      );
    });
  }

  /**
   * Resolves when the terminal's program has ended and all its output has been handed out.
   * @throws WrennError why the sandbox is gone, or `connection_lost`; what `onData` threw; the reason of the signal
   */
  async wait(): Promise<CommandResult> {
    return this.#process.ended;
  }

  /**
   * Types. Calls keep their order and need not be awaited one by one: what is typed while a message is under way goes together as
   * the next. Never sent twice.
   * @throws CommandError `process_not_found` when the terminal has ended; ConnectionError when it is not known whether it arrived
   */
  async sendInput(input: Uint8Array | string): Promise<void> {
    await this.#input.write(typeof input === "string" ? new TextEncoder().encode(input) : input);
  }

  /**
   * Changes the size; the program in it is told by SIGWINCH.
   * @throws CommandError `process_not_found` when the terminal has ended
   */
  async resize(cols: number, rows: number, options: RequestOptions = {}): Promise<void> {
    const request = { process: selectorOf(this.pid), pty: { size: { cols, rows } } };
    const what = `resizing terminal ${this.pid}`;
    await this.#guest.call({ ...options, what }, (call) => this.#guest.processes.update(request, call));
  }

  /**
   * Sends a signal to the terminal's program and its children.
   * @param signal default `SIGKILL`
   * @returns false when it has ended
   */
  async kill(signal: SignalName = "SIGKILL", options: RequestOptions = {}): Promise<boolean> {
    return sendSignal(this.#guest, this.pid, signal, options);
  }
}
