/** Terminals in a sandbox: opened, and found again. */
import { processConfig, type ProcessOptions } from "./command-line.ts";
import type { RequestOptions } from "./connection.ts";
import type { GuestConnection } from "./guest-connection.ts";
import { ProcessStream } from "./process-stream.ts";
import { TerminalHandle, type TerminalSize } from "./terminal-handle.ts";

/** What a terminal's program prints, one piece at a time: what is returned is awaited before more is read. */
export type TerminalListener = (bytes: Uint8Array) => void | Promise<void>;

interface Following {
  onData?: TerminalListener | undefined;
  /** Called when a broken connection was made again. Output of the time in between may be missing. */
  onReconnect?: (() => void) | undefined;
  /** Stops following the terminal; `wait` then rejects with the signal's reason. Its program goes on. */
  signal?: AbortSignal | undefined;
}

export interface CreateTerminalOptions extends ProcessOptions, TerminalSize, Following {
  /** The program in it; default an interactive login shell, `/bin/bash -i -l`. */
  cmd?: string | undefined;
  args?: readonly string[] | undefined;
  /** A name to find it by, 1 to 128 characters. */
  tag?: string | undefined;
  signal?: AbortSignal | undefined;
}

export interface ConnectTerminalOptions extends RequestOptions, Following {
  /** Whether `onData` first gets the latest output, up to 64 KiB, which paints the screen again; default true. */
  replay?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

export class Terminals {
  readonly #guest: GuestConnection;

  /** Made by `Sandbox`. */
  constructor(guest: GuestConnection) {
    this.#guest = guest;
  }

  /**
   * Opens a terminal and resolves once its program runs. Following it survives broken connections and restarts of the server.
   * @throws CommandError `command_not_found`, `command_not_executable`; GuestError `guest_refused` for an unknown user or a
   * missing directory
   */
  async create(options: CreateTerminalOptions): Promise<TerminalHandle> {
    const { cols, rows, cmd, args = [], tag, signal } = options;
    const command = cmd === undefined ? ["/bin/bash", "-i", "-l"] : [cmd, ...args];
    const request = { process: processConfig(command, options), pty: { size: { cols, rows } } };
    const tagged = tag === undefined ? request : { ...request, tag };
    const process = await ProcessStream.start(this.#guest, tagged, listener(options), options);
    return new TerminalHandle(this.#guest, process, { tag: tag ?? null, signal });
  }

  /**
   * Joins a terminal that runs, or that ended within the last 30 seconds.
   * @param terminal its tag or pid
   * @throws CommandError `process_not_found`
   */
  async connect(terminal: string | number, options: ConnectTerminalOptions = {}): Promise<TerminalHandle> {
    const { signal, requestTimeoutMs, replay = true } = options;
    const following = { signal, requestTimeoutMs, replay };
    const process = await ProcessStream.connect(this.#guest, terminal, listener(options), following);
    return new TerminalHandle(this.#guest, process, { tag: typeof terminal === "string" ? terminal : null, signal });
  }
}

function listener({ onData, onReconnect }: Following) {
  return {
    deliver: (_stream: "stdout" | "stderr", bytes: Uint8Array) => onData?.(bytes),
    finish: () => undefined,
    onReconnect,
  };
}
