/** Starting commands in a sandbox. */
import { errorFromGuest, startErrors } from "@wrenn/contract";
import { CommandHandle, type OutputListener } from "./command-handle.ts";
import type { GuestConnection } from "./guest-connection.ts";

export interface PtySize {
  cols: number;
  rows: number;
}

export interface CommandOptions {
  args?: readonly string[];
  /** Added to, and stronger than, the sandbox's environment. */
  envs?: Readonly<Record<string, string>>;
  /** Default: the user's home directory. */
  cwd?: string;
  /** Who runs it; default the sandbox's default user. */
  user?: string;
  /** Whether the command gets a standard input that can be written to; default true. Without it, it reads end of file. */
  stdin?: boolean;
  /** Milliseconds after which the guest kills the command with its whole process group; default none. */
  timeoutMs?: number;
  /** Runs the command in a terminal of this size. All its output is then `onStdout`'s. */
  pty?: PtySize;
  /** Called with each piece of output, one at a time: what it returns is awaited before more is read. */
  onStdout?: OutputListener;
  onStderr?: OutputListener;
  /** Called when a broken connection to the command was made again. Output of the time in between may be missing. */
  onReconnect?: () => void;
  /** Stops following the command; `wait` then rejects with the signal's reason. The command goes on: see `kill`. */
  signal?: AbortSignal;
}

/** Seconds. Below the five minutes of silence after which HTTP clients and proxies give up on a stream. */
const keepalivePingSeconds = 50;

export class CommandsClient {
  readonly #guest: GuestConnection;

  constructor(guest: GuestConnection) {
    this.#guest = guest;
  }

  /**
   * Starts a program (no shell is involved) and resolves once it runs.
   * @throws WrennError `command_not_found`, `command_not_executable`, `guest_refused` (unknown user, missing directory).
   */
  async start(cmd: string, options: CommandOptions = {}): Promise<CommandHandle> {
    const stop = new AbortController();
    const { signal } = stop;
    // Not AbortSignal.any: what it returns can be collected as garbage while it is waited for (nodejs/node#57736).
    const abort = (): void => {
      stop.abort(options.signal?.reason);
    };
    if (options.signal?.aborted === true) abort();
    options.signal?.addEventListener("abort", abort, { once: true });
    const stream = this.#guest.processes.start(startRequest(cmd, options), { headers: startHeaders(options), signal });
    const events = stream[Symbol.asyncIterator]();
    try {
      const first = await events.next();
      const event = first.done === true ? undefined : first.value.event?.event;
      if (event?.case !== "start") throw new Error("the stream did not begin with the process's start");
      const handle = new CommandHandle(this.#guest, event.value.pid, events, stop, options);
      const unfollow = (): void => options.signal?.removeEventListener("abort", abort);
      handle.wait().then(unfollow, unfollow);
      return handle;
    } catch (error) {
      stop.abort();
      options.signal?.removeEventListener("abort", abort);
      options.signal?.throwIfAborted();
      throw errorFromGuest(error, startErrors);
    }
  }
}

function startRequest(cmd: string, options: CommandOptions) {
  return {
    process: {
      cmd,
      args: [...(options.args ?? [])],
      envs: { ...options.envs },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    },
    ...(options.pty === undefined ? {} : { pty: { size: options.pty } }),
    stdin: options.stdin ?? true,
  } satisfies Parameters<GuestConnection["processes"]["start"]>[0];
}

function startHeaders(options: CommandOptions): Headers {
  const headers = new Headers({ "keepalive-ping-interval": String(keepalivePingSeconds) });
  if (options.user !== undefined) headers.set("authorization", `Basic ${btoa(`${options.user}:`)}`);
  // Not the RPC library's own deadline: that would also give up on this side, before the guest can say how it ended.
  if (options.timeoutMs !== undefined) headers.set("connect-timeout-ms", String(Math.ceil(options.timeoutMs)));
  return headers;
}
