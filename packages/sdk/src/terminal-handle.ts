/** A terminal that runs in a sandbox. */
import { encodeText } from "./bodies.ts";
import type { RequestOptions } from "./connection.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { type HandleOptions, ProcessHandle } from "./process-handle.ts";
import { type ProcessStream, selectorOf } from "./process-stream.ts";

/** Each 1 to 65535. */
export interface TerminalSize {
  cols: number;
  rows: number;
}

export class TerminalHandle extends ProcessHandle {
  /** Made by `sandbox.pty`. */
  constructor(guest: GuestConnection, process: ProcessStream, options: HandleOptions) {
    super(guest, process, "pty", options);
  }

  /**
   * Types. Calls keep their order and need not be awaited one by one: what is typed while a message is under way goes together as
   * the next. Never sent twice.
   * @throws CommandError `process_not_found` when the terminal has ended; ConnectionError when it is not known whether it arrived
   */
  async sendInput(input: Uint8Array | string): Promise<void> {
    await this.input.write(encodeText(input));
  }

  /**
   * Changes the size; the program in it is told by SIGWINCH.
   * @throws CommandError `process_not_found` when the terminal has ended
   */
  async resize(cols: number, rows: number, options: RequestOptions = {}): Promise<void> {
    const request = { process: selectorOf(this.pid), pty: { size: { cols, rows } } };
    const what = `resizing terminal ${this.pid}`;
    await this.guest.call({ ...options, what }, (call) => this.guest.processes.update(request, call));
  }
}
