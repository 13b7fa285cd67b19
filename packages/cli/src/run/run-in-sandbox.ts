/** `wrenn run`: one command in a sandbox of its own, which is gone when the command has ended, however it ends. */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { asWrennError, deadlines } from "@wrenn/contract";
import { type ConnectionOptions, type CreateSandboxOptions, Sandbox } from "@wrenn/sdk";
import { type Layout, pollUntil } from "@wrenn/system";
import { ensureServer } from "../ensure-server.ts";
import type { Connection } from "../local-server.ts";
import { findSandboxOfRun, runMetadata, thisProcess } from "../server/abandoned-runs.ts";
import { endingToJson, exitCodeOf, explainEnd, reportFailure } from "../session/exit.ts";
import { followProcess } from "../session/follow.ts";
import { Interrupts } from "../session/interrupts.ts";
import { CapturedOutput, streamedOutput } from "../session/output.ts";
import { commandStarter, terminalStarter } from "../session/process.ts";
import { flushOutput } from "../terminal/flush.ts";
import { printJson, reportError, say } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";

export interface RunOptions {
  layout: Layout;
  command: string;
  args: readonly string[];
  env: Record<string, string>;
  template?: string;
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

const destroyRetryMs = 500;
/** A create that was interrupted may not have reached the server yet. */
const unborn = { appearsWithinMs: 2_000, listTimeoutMs: 10_000 } as const;

/** Resolves with the exit code of the process. */
export async function runInSandbox(options: RunOptions): Promise<number> {
  const interrupts = new Interrupts();
  const captured = options.json ? new CapturedOutput() : null;
  const output = captured ?? streamedOutput(interrupts);
  const progress = new Progress({ quiet: options.quiet });
  const begun = performance.now();
  let sandbox: Sandbox | null = null;
  try {
    const connection = await ensureServer(options.layout, progress, interrupts.signal);
    sandbox = await createForRun(connection, options, progress, interrupts);
    const createdMs = performance.now() - begun;
    const request = { ...options, command: [options.command, ...options.args] };
    const start = options.tty ? terminalStarter(sandbox, request) : commandStarter(sandbox, request);
    const ending = await followProcess(start, { output, interrupts, timeoutMs: options.timeoutMs });
    if (captured === null) explainEnd(ending.result, options);
    else printJson(jsonResult(sandbox, options, endingToJson(ending, captured), { createdMs, begun }));
    return exitCodeOf(ending.result);
  } catch (error) {
    // What was under way when the run was given up fails in many ways, all for that one reason.
    return reportFailure(interrupts.signal.aborted ? interrupts.signal.reason : error, options);
  } finally {
    await flushOutput(interrupts.signal);
    interrupts.tidyingUp();
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
    template: options.template,
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
      interrupts.tidyingUp();
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
  ending: Record<string, unknown>,
  times: { createdMs: number; begun: number },
): Record<string, unknown> {
  return {
    sandbox_id: sandbox.id,
    kept: options.keep,
    engine: sandbox.info.engine,
    ...ending,
    created_ms: Math.round(times.createdMs),
    command_ms: Math.round(performance.now() - times.begun - times.createdMs),
  };
}
