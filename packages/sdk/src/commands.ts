/** Commands in a sandbox: run to their end, started in the background, found again, killed. */
import { asProcess, type SignalName } from "@wrenn/contract";
import { CommandHandle } from "./command-handle.ts";
import { type CommandLine, processConfig, type ProcessOptions } from "./command-line.ts";
import type { RequestOptions } from "./connection.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { listenWith, type OutputListeners } from "./output.ts";
import { ProcessStream, sendSignal } from "./process-stream.ts";
import { type CommandOutput, type RunOptions, runCommand } from "./run-command.ts";

export interface StartOptions extends ProcessOptions, OutputListeners {
  /** A name to find it by, 1 to 128 characters. */
  tag?: string | undefined;
  /** Whether the command gets a standard input that can be written to; default false: it reads end of file. */
  stdin?: boolean | undefined;
  /** Stops following the command; `wait` then rejects with the signal's reason. The command goes on: see `kill`. */
  signal?: AbortSignal | undefined;
}

export interface ConnectOptions extends RequestOptions, OutputListeners {
  /** Whether the listeners first get the latest output, up to 64 KiB; default false. */
  replay?: boolean | undefined;
}

/** A process that runs in the sandbox and was started through Wrenn. */
export interface ProcessInfo {
  pid: number;
  tag: string | null;
  /** The program, and what it was given. */
  cmd: string;
  args: string[];
  cwd: string | null;
}

export class Commands {
  readonly #guest: GuestConnection;

  /** Made by `Sandbox`. */
  constructor(guest: GuestConnection) {
    this.#guest = guest;
  }

  /**
   * Runs a command and resolves when it has ended, with what it wrote. An exit code other than 0 is no error. Aborting kills the
   * command with all its children before this rejects.
   * @throws CommandError `command_not_found`, `command_not_executable`; GuestError `guest_refused` for an unknown user or a
   * missing directory, or why the sandbox died; ConflictError `sandbox_paused` when the sandbox was paused meanwhile: only then is the
   * command kept, and goes on with the sandbox; ConnectionError `connection_lost`
   */
  async run(command: CommandLine, options: RunOptions = {}): Promise<CommandOutput> {
    return runCommand(this.#guest, command, options);
  }

  /**
   * Starts a command and resolves once it runs. Following it survives broken connections and restarts of the server.
   * @throws as `run`
   */
  async start(command: CommandLine, options: StartOptions = {}): Promise<CommandHandle> {
    const { tag, signal } = options;
    const request = { process: processConfig(command, options), stdin: options.stdin ?? false };
    const tagged = tag === undefined ? request : { ...request, tag };
    const process = await ProcessStream.start(this.#guest, tagged, listenWith(options), options);
    return new CommandHandle(this.#guest, process, { tag: tag ?? null, signal });
  }

  /** Those that were started through Wrenn and have not ended, terminals included; oldest first. */
  async list(options: RequestOptions = {}): Promise<ProcessInfo[]> {
    const { processes } = await this.#guest.call({ ...options, what: "the list of processes" }, (call) =>
      this.#guest.processes.list({}, call),
    );
    return processes.map((process) => asProcess(process));
  }

  /**
   * Follows a command that runs, or that ended within the last 30 seconds.
   * @param process its pid or tag
   * @throws CommandError `process_not_found`
   */
  async connect(process: number | string, options: ConnectOptions = {}): Promise<CommandHandle> {
    const { signal, requestTimeoutMs, replay = false } = options;
    const joined = await ProcessStream.connect(this.#guest, process, listenWith(options), {
      signal,
      requestTimeoutMs,
      replay,
    });
    return new CommandHandle(this.#guest, joined, { tag: typeof process === "string" ? process : null, signal });
  }

  /**
   * Sends a signal to a command and all its children; SIGKILL reaches also those that left its process group.
   * @param process its pid or tag
   * @param signal default `SIGKILL`
   * @returns false when there is no such command, or it has ended
   */
  async kill(process: number | string, signal: SignalName = "SIGKILL", options: RequestOptions = {}): Promise<boolean> {
    return sendSignal(this.#guest, process, signal, options);
  }
}
