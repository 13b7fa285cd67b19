/** One program of the server, in a session of its own: started or adopted, watched, restarted, stopped. */
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, type ErrorCode, isErrorCode, WrennError } from "@wrenn/contract";
import {
  identifyProcess,
  isAlive,
  type Layout,
  type ProcessIdentity,
  processIdentitySchema,
  signalProcess,
  startDaemon,
  waitForExit,
  writeJsonDurably,
} from "@wrenn/system";
import { rm } from "node:fs/promises";
import { z } from "zod";
import { logSize, rotateLog, tailLog } from "./log-files.ts";
import { readPrivateJson } from "./root-only.ts";

export type PartName = "postgres" | "host-agent" | "control-plane";

export interface PartDefinition {
  readonly name: PartName;
  readonly program: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What else makes a running process not the one that would be started now, such as the age of its program. */
  readonly version: string;
  /** Asks for an orderly end. */
  readonly stopSignal: NodeJS.Signals;
  /** Whatever must hold before each start. */
  prepare?(): Promise<void>;
  isReady(identity: ProcessIdentity): Promise<boolean>;
  /** What an exit code means that makes another try pointless. */
  explainExit?(exitCode: number): WrennError | null;
}

const partRecordSchema = z.object({
  identity: processIdentitySchema,
  fingerprint: z.string(),
  startedAt: z.iso.datetime(),
});
export type PartRecord = z.infer<typeof partRecordSchema>;

export async function readPartRecord(layout: Layout, name: PartName): Promise<PartRecord | null> {
  const parsed = partRecordSchema.safeParse(await readPrivateJson(layout.processRecord(name)));
  return parsed.success ? parsed.data : null;
}

const readyPollMs = 50;
const watchPollMs = 250;
const startAttempts = 4;
const firstBackOffMs = 200;
const longestBackOffMs = 10_000;
/** A part that has lived this long has recovered: its next death is a first one. */
const recoveredAfterMs = 60_000;
const logTailLines = 15;
/** Failures of a start that may be over in a moment. */
const worthAnotherStart: ReadonlySet<ErrorCode> = new Set([
  "subprocess_failed",
  "database_unavailable",
  "host_unavailable",
  "internal",
]);

export class Part {
  readonly definition: PartDefinition;
  readonly #layout: Layout;
  readonly #report: (message: string) => void;
  #identity: ProcessIdentity | null = null;

  constructor(layout: Layout, definition: PartDefinition, report: (message: string) => void) {
    this.#layout = layout;
    this.definition = definition;
    this.#report = report;
  }

  get name(): PartName {
    return this.definition.name;
  }

  /**
   * Adopts the process of an earlier server if it is what would be started now; else ends it and starts a new one. Rejects
   * when the signal aborts, with nothing of the part left running.
   */
  async ensureStarted(signal?: AbortSignal): Promise<"adopted" | "started"> {
    const record = await readPartRecord(this.#layout, this.name);
    if (record !== null && (await isAlive(record.identity))) {
      if (record.fingerprint === this.#fingerprint() && (await this.#becomesReady(record.identity, signal))) {
        this.#identity = record.identity;
        return "adopted";
      }
      await endPart(this.#layout, this.name, record.identity, this.definition.stopSignal);
    }
    let backOffMs = firstBackOffMs;
    for (let attempt = 1; ; attempt += 1) {
      signal?.throwIfAborted();
      try {
        await this.#start(signal);
        return "started";
      } catch (error) {
        signal?.throwIfAborted();
        const mayPass = error instanceof WrennError && worthAnotherStart.has(error.code);
        if (!mayPass || attempt === startAttempts) throw error;
      }
      await pause(backOffMs, signal);
      backOffMs *= 2;
    }
  }

  /**
   * Restarts the part whenever it dies, until aborted: at once when it had been well for a while, after growing pauses when it
   * keeps dying.
   */
  async keepAlive(signal: AbortSignal): Promise<void> {
    let pauseMs = 0;
    let aliveSince = performance.now();
    while (!signal.aborted) {
      if (this.#identity !== null && (await isAlive(this.#identity))) {
        if (performance.now() - aliveSince > recoveredAfterMs) pauseMs = 0;
        await pause(watchPollMs, signal);
        continue;
      }
      this.#report(`${this.name} has ended; starting it again`);
      await pause(pauseMs, signal);
      pauseMs = Math.min(Math.max(pauseMs * 2, firstBackOffMs), longestBackOffMs);
      if (signal.aborted) return;
      try {
        await this.#start(signal);
        aliveSince = performance.now();
        this.#report(`${this.name} is back`);
      } catch (error) {
        this.#report(`${this.name} did not start: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
  }

  async stop(): Promise<void> {
    if (this.#identity === null) return;
    await endPart(this.#layout, this.name, this.#identity, this.definition.stopSignal);
    this.#identity = null;
  }

  async #start(signal?: AbortSignal): Promise<void> {
    const { name, program, args, env } = this.definition;
    const logFile = this.#layout.log(name);
    await rotateLog(logFile);
    const logPosition = await logSize(logFile);
    await this.definition.prepare?.();
    const { pid, exited } = await startDaemon(program, args, { env: { ...env }, logFile });
    const identity = await identifyProcess(pid);
    if (identity !== null) {
      this.#identity = identity;
      await writeJsonDurably(this.#layout.processRecord(name), {
        identity,
        fingerprint: this.#fingerprint(),
        startedAt: new Date().toISOString(),
      } satisfies PartRecord);
      if (await this.#becomesReady(identity, signal)) return;
    }
    const alive = identity !== null && (await isAlive(identity));
    if (alive) await this.stop();
    // Its exit code follows its disappearance at once.
    const exitCode = alive ? undefined : await Promise.race([exited, delay(1_000)]);
    this.#identity = null;
    throw await this.#explainFailure(exitCode ?? undefined, logPosition);
  }

  async #explainFailure(exitCode: number | undefined, logPosition: number): Promise<WrennError> {
    const known = exitCode === undefined ? null : this.definition.explainExit?.(exitCode);
    if (known !== null && known !== undefined) return known;
    const logFile = this.#layout.log(this.name);
    const words = await tailLog(logFile, logTailLines, logPosition);
    // The last words of our own programs are the error that ended them, with its code.
    const [, code, message] = /^([a-z_]+): (.+)$/m.exec(words) ?? [];
    if (code !== undefined && message !== undefined && isErrorCode(code)) {
      return new WrennError(code, { message: `${this.name}: ${message}` });
    }
    const how =
      exitCode === undefined ? `was not ready within ${deadlines.serverStart / 1_000} s` : `ended with ${exitCode}`;
    return new WrennError("subprocess_failed", {
      message: `${this.name} ${how}. Its log, ${logFile}, ends with:\n${words}`,
    });
  }

  /** False when the process ends, the deadline passes or the server stops before it is ready. */
  async #becomesReady(identity: ProcessIdentity, signal?: AbortSignal): Promise<boolean> {
    const deadline = performance.now() + deadlines.serverStart;
    while (performance.now() < deadline) {
      if (signal?.aborted === true) return false;
      if (await this.definition.isReady(identity)) return true;
      if (!(await isAlive(identity))) return false;
      await delay(readyPollMs);
    }
    return false;
  }

  #fingerprint(): string {
    const { program, args, env, version } = this.definition;
    const sortedEnv = Object.entries(env).sort(([a], [b]) => (a < b ? -1 : 1));
    return createHash("sha256")
      .update(JSON.stringify([program, args, sortedEnv, version]))
      .digest("hex");
  }
}

/** Ends a part's process in order, by force where it does not, and forgets it. */
export async function endPart(
  layout: Layout,
  name: PartName,
  identity: ProcessIdentity,
  stopSignal: NodeJS.Signals,
): Promise<void> {
  await signalProcess(identity, stopSignal);
  if (!(await waitForExit(identity, deadlines.serverStop))) {
    await signalProcess(identity, "SIGKILL");
    await waitForExit(identity, deadlines.serverStop);
  }
  await rm(layout.processRecord(name), { force: true });
}

async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(milliseconds, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
}
