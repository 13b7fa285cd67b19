/** `wrenn run`: one command in a sandbox of its own, which is gone when the command has ended, however it ends. */
import { randomUUID } from "node:crypto";
import { constants } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { asWrennError, deadlines, WrennError } from "@wrenn/contract";
import {
  type CommandResult,
  type ConnectionOptions,
  type CreateSandboxOptions,
  Sandbox,
  TerminalHandle,
} from "@wrenn/sdk";
import { type Layout, pollUntil } from "@wrenn/system";
import { ensureServer } from "../ensure-server.ts";
import type { Connection } from "../local-server.ts";
import { findSandboxOfRun, runMetadata, thisProcess } from "../server/abandoned-runs.ts";
import { flushOutput } from "../terminal/flush.ts";
import { printJson, reportError, say } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";
import { formatSeconds } from "../units.ts";
import { forwardInput, lendTerminal, terminalSize } from "./input.ts";
import { GivenUp, Interrupts } from "./interrupts.ts";
import { CapturedOutput, type RunOutput, streamedOutput } from "./output.ts";

export interface RunOptions {
  layout: Layout;
  command: string;
  args: readonly string[];
  env: Record<string, string>;
  vcpus?: number;
  memoryMib?: number;
  diskMib?: number;
  timeoutMs?: number;
  user?: string;
  cwd?: string;
  keep: boolean;
  tty: boolean;
  json: boolean;
  quiet: boolean;
}

/** Wrenn's own failures, told apart from the command's; 126 and 127 are as shells have them. */
export const exitCodes = { timedOut: 124, wrenn: 125, notExecutable: 126, notFound: 127 } as const;

/** How much later than the guest's own deadline this side gives up, should the guest have stopped answering. */
const timeoutGraceMs = 10_000;
const destroyRetryMs = 500;
/** What breaks the input may have ended the sandbox: following the command says so within this, and says why. */
const inputGraceMs = 5_000;
/** A create that was interrupted may not have reached the server yet. */
const unborn = { appearsWithinMs: 2_000, listTimeoutMs: 10_000 } as const;

/** Resolves with the exit code of the process. */
export async function runInSandbox(options: RunOptions): Promise<number> {
  const interrupts = new Interrupts();
  const captured = options.json ? new CapturedOutput() : null;
  const output =
    captured ??
    streamedOutput(() => {
      interrupts.giveUp(new GivenUp("the output was closed", 128 + constants.signals.SIGPIPE));
    });
  const progress = new Progress({ quiet: options.quiet });
  const start = performance.now();
  let sandbox: Sandbox | null = null;
  try {
    const connection = await ensureServer(options.layout, progress, interrupts.signal);
    sandbox = await createForRun(connection, options, progress, interrupts);
    const createdMs = performance.now() - start;
    const { result, reconnected } = await follow(sandbox, options, output, interrupts);
    const exitCode = result.timedOut ? exitCodes.timedOut : result.exitCode;
    if (captured === null) explainEnd(result, options);
    else printJson(jsonResult(sandbox, options, result, exitCode, captured, reconnected, { createdMs, start }));
    return exitCode;
  } catch (error) {
    // What was under way when the run was given up fails in many ways, all for that one reason.
    return reportFailure(interrupts.signal.aborted ? interrupts.signal.reason : error, options);
  } finally {
    await flushOutput(interrupts.signal);
    interrupts.destroying();
    if (sandbox !== null) await leave(sandbox, options, progress);
    interrupts.dispose();
  }
}

async function createForRun(
  { api, isLocal }: Connection,
  options: RunOptions,
  progress: Progress,
  interrupts: Interrupts,
): Promise<Sandbox> {
  const run = randomUUID();
  const request: CreateSandboxOptions = {
    ...api,
    // A sandbox that is kept has no owner, nor has one on a server that cannot see this process.
    metadata: options.keep || !isLocal ? runMetadata(run) : runMetadata(run, await thisProcess()),
    vcpus: options.vcpus,
    memoryMib: options.memoryMib,
    diskMib: options.diskMib,
    signal: interrupts.signal,
  };
  try {
    return await progress.during("creating a sandbox", () => Sandbox.create(request));
  } catch (error) {
    // The server goes on with what it was asked for.
    if (interrupts.signal.aborted) {
      interrupts.destroying();
      await destroyUnborn(api, run);
    }
    throw error;
  }
}

async function destroyUnborn(api: ConnectionOptions, run: string): Promise<void> {
  const signal = AbortSignal.timeout(unborn.listTimeoutMs);
  const sandbox = await pollUntil(() => findSandboxOfRun(api, run, signal), {
    timeoutMs: unborn.appearsWithinMs,
    intervalMs: 100,
  });
  if (sandbox !== null) await Sandbox.destroy(sandbox.id, { ...api, requestTimeoutMs: deadlines.destroySandbox });
}

async function follow(
  sandbox: Sandbox,
  options: RunOptions,
  output: RunOutput,
  interrupts: Interrupts,
): Promise<{ result: CommandResult; reconnected: boolean }> {
  let reconnected = false;
  const common = {
    envs: options.env,
    user: options.user,
    cwd: options.cwd,
    timeoutMs: options.timeoutMs,
    onReconnect: () => {
      reconnected = true;
      // Also with --quiet: whoever pipes the output on has no other way to know that it is not whole.
      say("wrenn: the connection was made again; some output may be missing");
    },
    signal: interrupts.signal,
  };
  const onStdout = (bytes: Uint8Array): Promise<void> => output.stdout(bytes);
  const onStderr = (bytes: Uint8Array): Promise<void> => output.stderr(bytes);
  const { command: cmd, args } = options;
  const command = options.tty
    ? await sandbox.pty.create({ ...common, ...terminalSize(), cmd, args, onData: onStdout })
    : await sandbox.commands.start([cmd, ...args], { ...common, stdin: true, onStdout, onStderr });
  interrupts.forwardTo(command);
  const returnTerminal = command instanceof TerminalHandle ? lendTerminal(command) : (): void => undefined;
  const backstop =
    options.timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          interrupts.giveUp(new GivenUp(timeoutMessage(options), exitCodes.timedOut));
        }, options.timeoutMs + timeoutGraceMs);
  let ended = false;
  let inputFailed: NodeJS.Timeout | undefined;
  // Ends by itself with the command; what it waits for must not keep the run from ending.
  forwardInput(command).catch((error: unknown) => {
    if (ended) return;
    // The command would wait for the rest of its input for ever.
    inputFailed = setTimeout(() => {
      interrupts.giveUp(inputError(error));
    }, inputGraceMs);
  });
  try {
    return { result: await Promise.race([command.wait(), interrupts.givenUp()]), reconnected };
  } finally {
    ended = true;
    interrupts.commandEnded();
    clearTimeout(inputFailed);
    clearTimeout(backstop);
    returnTerminal();
  }
}

function inputError(cause: unknown): WrennError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new WrennError(asWrennError(cause).code, {
    message: `The command's input could not be handed on to its end: ${reason}`,
    suggestion: "Run it again: how much of its input the command has had is not known.",
    cause,
  });
}

function explainEnd(result: CommandResult, options: RunOptions): void {
  if (result.timedOut) say(`wrenn: ${timeoutMessage(options)}`);
  if (result.oomKilled) reportError(new WrennError("guest_out_of_memory"), { json: false });
}

function timeoutMessage(options: RunOptions): string {
  return `the command was stopped after ${formatSeconds(options.timeoutMs ?? 0)} (--timeout)`;
}

/** Says why there is no exit code of the command's own, and returns the one there is instead. */
function reportFailure(thrown: unknown, options: RunOptions): number {
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

/** Destroys the sandbox, or says how to. A failure is reported, and does not change what the command has come to. */
async function leave(sandbox: Sandbox, options: RunOptions, progress: Progress): Promise<void> {
  if (options.keep) {
    if (!options.quiet) say(`kept ${sandbox.id}\nto remove it: wrenn rm ${sandbox.id}`);
    return;
  }
  try {
    await progress.during("destroying the sandbox", () => destroyPatiently(sandbox));
  } catch (error) {
    reportError(error, { json: false });
    say(`wrenn: ${sandbox.id} could not be destroyed yet; the server does it as soon as it can`);
  }
}

/** The server may just be restarting. */
async function destroyPatiently(sandbox: Sandbox): Promise<void> {
  const signal = AbortSignal.timeout(deadlines.destroySandbox);
  for (;;) {
    try {
      await sandbox.destroy({ signal });
      return;
    } catch (error) {
      const { code, retryable } = asWrennError(error);
      if (code === "sandbox_not_found") return;
      if (!retryable || signal.aborted) throw error;
    }
    await delay(destroyRetryMs);
  }
}

function jsonResult(
  sandbox: Sandbox,
  options: RunOptions,
  result: CommandResult,
  exitCode: number,
  captured: CapturedOutput,
  reconnected: boolean,
  times: { createdMs: number; start: number },
): Record<string, unknown> {
  return {
    sandbox_id: sandbox.id,
    kept: options.keep,
    engine: sandbox.info.engine,
    exit_code: exitCode,
    exited: result.exited,
    timed_out: result.timedOut,
    oom_killed: result.oomKilled,
    ...captured.toJson(),
    output_incomplete: reconnected,
    created_ms: Math.round(times.createdMs),
    command_ms: Math.round(performance.now() - times.start - times.createdMs),
  };
}
