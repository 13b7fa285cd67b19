/** Stands in for a process in a sandbox until it ends: its input, output, signals, terminal and time are ours. */
import { asWrennError, WrennError } from "@wrenn/contract";
import type { CommandResult } from "@wrenn/sdk";
import { say } from "../terminal/messages.ts";
import { exitCodes, timeoutMessage } from "./exit.ts";
import { forwardInput } from "./input.ts";
import { GivenUp, type Interrupts } from "./interrupts.ts";
import type { OutputSink } from "./output.ts";
import type { FollowedProcess, StartProcess } from "./process.ts";
import { leavableInput, lendTerminal } from "./terminal.ts";

export interface FollowOptions {
  output: OutputSink;
  interrupts: Interrupts;
  /** The process's own deadline, should the guest not keep it. */
  timeoutMs?: number | undefined;
  /** Whether signals are the process's own to answer, rather than a reason to leave it; default true. */
  forwardSignals?: boolean;
  /** Called when two presses of Ctrl-] mean leaving; without it, every key is the process's. */
  onLeave?: () => void;
  /** What becomes of a process that was given up before it ended; without it, it goes on. */
  whenGivenUp?: (process: FollowedProcess) => Promise<unknown>;
}

export interface Ending {
  result: CommandResult;
  /** The connection broke and was made again: some output may be missing. */
  reconnected: boolean;
}

/** How much later than the guest's own deadline this side gives up, should the guest have stopped answering. */
const timeoutGraceMs = 10_000;
/** What breaks the input may have ended the sandbox: following the command says so within this, and says why. */
const inputGraceMs = 5_000;

/** @throws what kept the process from being started or followed; `GivenUp` */
export async function followProcess(start: StartProcess, options: FollowOptions): Promise<Ending> {
  const { output, interrupts } = options;
  let reconnected = false;
  const onReconnect = (): void => {
    reconnected = true;
    // Also with --quiet: whoever pipes the output on has no other way to know that it is not whole.
    say("wrenn: the connection was made again; some output may be missing");
  };
  const process = await start({ output, onReconnect, signal: interrupts.signal });
  if (options.forwardSignals ?? true) interrupts.forwardTo(process);
  const terminal = process.resize === undefined ? null : lendTerminal(process.resize);
  const stopGuarding = guard(process, options);
  let ended = false;
  try {
    const result = await Promise.race([process.wait(), interrupts.givenUp()]);
    ended = true;
    return { result, reconnected };
  } finally {
    interrupts.commandEnded();
    stopGuarding();
    terminal?.takeBack({ programEnded: ended });
    if (!ended && interrupts.signal.aborted) {
      // What cannot be reached cannot be ended; why it was given up is told by what is thrown.
      await options.whenGivenUp?.(process).catch(() => undefined);
    }
  }
}

/** Hands the input on, and gives up when that or the time breaks off. Returns how to stop. */
function guard(process: FollowedProcess, { interrupts, timeoutMs, onLeave }: FollowOptions): () => void {
  const backstop =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          interrupts.giveUp(new GivenUp(timeoutMessage({ timeoutMs }), exitCodes.timedOut));
        }, timeoutMs + timeoutGraceMs);
  let stopped = false;
  let inputFailed: NodeJS.Timeout | undefined;
  const input = onLeave === undefined ? process.input : leavableInput(process.input, onLeave);
  // Ends by itself with the process; what it waits for must not keep us from ending.
  forwardInput(input).catch((error: unknown) => {
    if (stopped) return;
    // The process would wait for the rest of its input for ever.
    inputFailed = setTimeout(() => {
      interrupts.giveUp(inputError(error));
    }, inputGraceMs);
  });
  return () => {
    stopped = true;
    clearTimeout(inputFailed);
    clearTimeout(backstop);
  };
}

function inputError(cause: unknown): WrennError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new WrennError(asWrennError(cause).code, {
    message: `The command's input could not be handed on to its end: ${reason}`,
    suggestion: "Run it again: how much of its input the command has had is not known.",
    cause,
  });
}
