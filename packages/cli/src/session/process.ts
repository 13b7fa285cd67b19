/** What is started in a sandbox to be followed from here: a command with pipes, or a program on a terminal. */
import { WrennError } from "@wrenn/contract";
import type { CommandResult, RequestOptions, Sandbox, SignalName, TerminalHandle, TerminalSize } from "@wrenn/sdk";
import type { InputSink } from "./input.ts";
import type { OutputSink } from "./output.ts";
import { terminalEnvironment, terminalSize } from "./terminal.ts";

export interface CommandRequest {
  command: readonly string[];
  env?: Record<string, string> | undefined;
  user?: string | undefined;
  cwd?: string | undefined;
  timeoutMs?: number | undefined;
}

/** Where what it does is heard. */
export interface Listening {
  output: OutputSink;
  onReconnect: () => void;
  signal: AbortSignal;
}

export interface FollowedProcess {
  readonly pid: number;
  readonly input: InputSink;
  wait(): Promise<CommandResult>;
  kill(signal: SignalName, options?: RequestOptions): Promise<unknown>;
  /** Only of what has a terminal. */
  readonly resize?: (size: TerminalSize) => Promise<void>;
}

/** Starts a program with our arguments; how it is joined with us is for `followProcess`. */
export type StartProcess = (listening: Listening) => Promise<FollowedProcess>;

export function commandStarter(sandbox: Sandbox, request: CommandRequest): StartProcess {
  return async ({ output, onReconnect, signal }) => {
    const handle = await sandbox.commands.start(request.command, {
      ...requestOptions(request),
      stdin: true,
      onStdout: (bytes) => output.stdout(bytes),
      onStderr: (bytes) => output.stderr(bytes),
      onReconnect,
      signal,
    });
    return {
      pid: handle.pid,
      input: { write: (bytes) => handle.sendStdin(bytes), end: () => handle.closeStdin() },
      wait: () => handle.wait(),
      kill: (name, options) => handle.kill(name, options),
    };
  };
}

/** Without a command, a login shell. */
export function terminalStarter(
  sandbox: Sandbox,
  request: Partial<CommandRequest> & { tag?: string | undefined },
): StartProcess {
  const [cmd, ...args] = request.command ?? [];
  return async (listening) => {
    const terminal = await sandbox.pty.create({
      ...requestOptions(request),
      ...terminalSize(),
      envs: { ...terminalEnvironment(), ...request.env },
      cmd,
      args,
      tag: request.tag,
      ...terminalListeners(listening),
    });
    return followedTerminal(terminal);
  };
}

/** Comes back to the terminal of that name, or opens it. */
export function namedTerminalStarter(
  sandbox: Sandbox,
  request: Partial<CommandRequest> & { tag: string },
): StartProcess {
  return async (listening) => {
    try {
      const terminal = await sandbox.pty.connect(request.tag, terminalListeners(listening));
      const { cols, rows } = terminalSize();
      await terminal.resize(cols, rows, { signal: listening.signal });
      return followedTerminal(terminal);
    } catch (error) {
      if (!(error instanceof WrennError && error.code === "process_not_found")) throw error;
      return terminalStarter(sandbox, request)(listening);
    }
  };
}

function requestOptions({ env, user, cwd, timeoutMs }: Partial<CommandRequest>) {
  return { envs: env, user, cwd, timeoutMs };
}

function terminalListeners({ output, onReconnect, signal }: Listening) {
  return { onData: (bytes: Uint8Array) => output.stdout(bytes), onReconnect, signal };
}

function followedTerminal(terminal: TerminalHandle): FollowedProcess {
  return {
    pid: terminal.pid,
    input: { write: (bytes) => terminal.sendInput(bytes) },
    wait: () => terminal.wait(),
    kill: (name, options) => terminal.kill(name, options),
    resize: ({ cols, rows }) => terminal.resize(cols, rows),
  };
}
