/** `wrenn exec`: a command in a sandbox that is there already. */
import { deadlines } from "@wrenn/contract";
import { openSandbox } from "../open-sandbox.ts";
import { endingToJson, exitCodeOf, explainEnd, reportFailure } from "../session/exit.ts";
import { followProcess } from "../session/follow.ts";
import { Interrupts } from "../session/interrupts.ts";
import { CapturedOutput, streamedOutput } from "../session/output.ts";
import { type CommandRequest, commandStarter, type FollowedProcess, terminalStarter } from "../session/process.ts";
import { flushOutput } from "../terminal/flush.ts";
import { printJson } from "../terminal/messages.ts";
import type { ExecFlags } from "../verbs/commands.ts";

export async function exec(given: string, command: readonly string[], flags: ExecFlags): Promise<number> {
  const request: CommandRequest = { ...flags, command, timeoutMs: flags.timeout };
  const options = { json: flags.json === true, timeoutMs: flags.timeout };
  if (flags.detach === true) return execDetached(given, request, options);
  const interrupts = new Interrupts();
  const captured = options.json ? new CapturedOutput() : null;
  const output = captured ?? streamedOutput(interrupts);
  try {
    const sandbox = await openSandbox(given, { signal: interrupts.signal });
    const start = flags.tty === true ? terminalStarter(sandbox, request) : commandStarter(sandbox, request);
    const { timeoutMs } = options;
    const ending = await followProcess(start, { output, interrupts, timeoutMs, whenGivenUp: endProcess });
    if (captured === null) explainEnd(ending.result, options);
    else printJson({ sandbox_id: sandbox.id, ...endingToJson(ending, captured) });
    return exitCodeOf(ending.result);
  } catch (error) {
    // What was under way when it was given up fails in many ways, all for that one reason.
    return reportFailure(interrupts.signal.aborted ? interrupts.signal.reason : error, options);
  } finally {
    await flushOutput(interrupts.signal);
    interrupts.dispose();
  }
}

/** Nobody is left to read its output or to send it anything. */
async function endProcess(process: FollowedProcess): Promise<void> {
  await process.kill("SIGKILL", { requestTimeoutMs: deadlines.commandInterrupt });
}

async function execDetached(
  given: string,
  { command, env, user, cwd, timeoutMs }: CommandRequest,
  options: { json: boolean },
): Promise<number> {
  try {
    const sandbox = await openSandbox(given);
    const { pid } = await sandbox.commands.start(command, { envs: env, user, cwd, timeoutMs });
    if (options.json) printJson({ sandbox_id: sandbox.id, pid });
    else process.stdout.write(`${pid}\n`);
    return 0;
  } catch (error) {
    return reportFailure(error, options);
  }
}
