/** What verbs that run a command exit with, and what they say where that is not the command's own exit code. */
import { asWrennError, WrennError } from "@wrenn/contract";
import type { CommandResult } from "@wrenn/sdk";
import { printJson, reportError, say } from "../terminal/messages.ts";
import { formatSeconds } from "../units.ts";
import type { Ending } from "./follow.ts";
import { GivenUp } from "./interrupts.ts";
import type { CapturedOutput } from "./output.ts";

/** Wrenn's own failures, told apart from the command's; 126 and 127 are as shells have them. */
export const exitCodes = { timedOut: 124, wrenn: 125, notExecutable: 126, notFound: 127 } as const;

export interface ReportOptions {
  json: boolean;
  /** What `--timeout` was. */
  timeoutMs?: number | undefined;
}

export function exitCodeOf(result: CommandResult): number {
  return result.timedOut ? exitCodes.timedOut : result.exitCode;
}

/** How it ended and what it wrote, for `--json`. */
export function endingToJson({ result, reconnected }: Ending, captured: CapturedOutput): Record<string, unknown> {
  return {
    exit_code: exitCodeOf(result),
    exited: result.exited,
    timed_out: result.timedOut,
    oom_killed: result.oomKilled,
    ...captured.toJson(),
    output_incomplete: reconnected,
  };
}

/** Says what the exit code alone does not. */
export function explainEnd(result: CommandResult, options: ReportOptions): void {
  if (result.timedOut) say(`wrenn: ${timeoutMessage(options)}`);
  if (result.oomKilled) reportError(new WrennError("guest_out_of_memory"), { json: false });
}

export function timeoutMessage(options: Pick<ReportOptions, "timeoutMs">): string {
  return `the command was stopped after ${formatSeconds(options.timeoutMs ?? 0)} (--timeout)`;
}

/** Says why there is no exit code of the command's own, and returns the one there is instead. */
export function reportFailure(thrown: unknown, options: ReportOptions): number {
  if (thrown instanceof GivenUp) {
    const code = thrown.exitCode === exitCodes.timedOut ? "timed_out" : "interrupted";
    if (options.json) printJson({ exit_code: thrown.exitCode, error: { code, message: thrown.message } });
    else if (thrown.exitCode === exitCodes.timedOut) say(`wrenn: ${thrown.message}`);
    return thrown.exitCode;
  }
  reportError(thrown, { json: options.json });
  const { code } = asWrennError(thrown);
  if (code === "command_not_found") return exitCodes.notFound;
  return code === "command_not_executable" ? exitCodes.notExecutable : exitCodes.wrenn;
}
