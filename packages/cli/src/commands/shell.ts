/** `wrenn shell`: our terminal becomes one in a sandbox. */
import { deadlines, WrennError } from "@wrenn/contract";
import { openSandbox } from "../open-sandbox.ts";
import { exitCodeOf, explainEnd, reportFailure } from "../session/exit.ts";
import { followProcess, type FollowOptions } from "../session/follow.ts";
import { GivenUp, Interrupts } from "../session/interrupts.ts";
import { streamedOutput } from "../session/output.ts";
import { type FollowedProcess, namedTerminalStarter, terminalStarter } from "../session/process.ts";
import { flushOutput } from "../terminal/flush.ts";
import { say } from "../terminal/messages.ts";
import type { ShellFlags } from "../verbs/commands.ts";

export async function shell(given: string, flags: ShellFlags): Promise<number> {
  const { tag } = flags;
  const interrupts = new Interrupts();
  const output = streamedOutput(interrupts);
  try {
    if (!process.stdin.isTTY || !process.stdout.isTTY) {
      throw new WrennError("invalid_request", {
        message: "A shell needs a terminal, and input or output of this command is none.",
        suggestion: "Use `wrenn exec` for scripts and pipes.",
      });
    }
    const sandbox = await openSandbox(given, { signal: interrupts.signal });
    const start =
      tag === undefined ? terminalStarter(sandbox, flags) : namedTerminalStarter(sandbox, { ...flags, tag });
    // Keys reach the shell as they are, Ctrl-C too: a signal is for us, and means that the terminal goes away.
    const options: FollowOptions = { output, interrupts, forwardSignals: false };
    const { result } = await followProcess(
      start,
      tag === undefined ? { ...options, whenGivenUp: hangUp } : { ...options, onLeave: () => interrupts.giveUp(left) },
    );
    explainEnd(result, { json: false });
    return exitCodeOf(result);
  } catch (error) {
    if (interrupts.signal.reason === left) {
      say(`\r\nwrenn: left the shell running; come back with: wrenn shell --tag ${tag ?? ""} ${given}`);
      return left.exitCode;
    }
    return reportFailure(interrupts.signal.aborted ? interrupts.signal.reason : error, { json: false });
  } finally {
    await flushOutput(interrupts.signal);
    interrupts.dispose();
  }
}

/** Ctrl-] was pressed twice. */
const left = new GivenUp("left", 0);

/** As the kernel does when a terminal is gone: the shell ends, and tells what it has started. */
async function hangUp(process: FollowedProcess): Promise<void> {
  await process.kill("SIGHUP", { requestTimeoutMs: deadlines.commandInterrupt });
}
