/** A command that runs in a sandbox. */
import { encodeText } from "./bodies.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { type HandleOptions, ProcessHandle } from "./process-handle.ts";
import { type ProcessStream, selectorOf } from "./process-stream.ts";

export class CommandHandle extends ProcessHandle {
  /** Made by `sandbox.commands`. */
  constructor(guest: GuestConnection, process: ProcessStream, options: HandleOptions) {
    super(guest, process, "stdin", options);
  }

  /**
   * Writes to the command's standard input. Resolves once the sandbox has taken it, which may be when the command reads. Calls
   * keep their order and need not be awaited one by one. Never sent twice.
   * @throws CommandError `process_not_found` when the command has ended; GuestError `guest_refused` when it has no standard
   * input or has closed it; ConnectionError when it is not known whether the bytes arrived
   */
  async sendStdin(input: Uint8Array | string): Promise<void> {
    await this.input.write(encodeText(input));
  }

  /**
   * The command reads end of file, behind all that was written before. Doing it twice is fine.
   * @throws CommandError `process_not_found` when the command has ended
   */
  async closeStdin(): Promise<void> {
    await this.input.settled();
    await this.callForInput((call) => this.guest.processes.closeStdin({ process: selectorOf(this.pid) }, call));
  }
}
