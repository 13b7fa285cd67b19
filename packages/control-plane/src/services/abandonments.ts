/** Processes whose caller has gone and that nobody can follow any more: they are ended, also when that takes several attempts. */
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import type { SignalName } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import type { Logger } from "pino";
import type { FollowedProcess } from "./followed-process.ts";

const retryMs = 500;

export class Abandonments {
  readonly #log: Logger;
  readonly #underWay = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Kills the process with everything that it has started. */
  kill(process: FollowedProcess): void {
    this.#run(process, async () => this.#signal(process, "SIGKILL"));
  }

  /** As when a terminal is unplugged: its processes may put things in order, and are killed if they have not ended soon. */
  hangUp(process: FollowedProcess): void {
    this.#run(process, async () => {
      await this.#signal(process, "SIGHUP");
      await delay(deadlines.terminalHangup, undefined, { signal: this.#closing.signal }).catch(() => undefined);
      await this.#signal(process, "SIGKILL");
    });
  }

  /** Completes what is under way without further patience. The last thing before connections into sandboxes are closed. */
  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#underWay);
  }

  #run(process: FollowedProcess, work: () => Promise<void>): void {
    const done = work().catch((error: unknown) => {
      const isOver = error instanceof WrennError && !error.retryable;
      if (isOver)
        this.#log.debug({ err: error, pid: process.pid }, "a process that nobody follows ended with its sandbox");
      else this.#log.warn({ err: error, pid: process.pid }, "a process that nobody follows could not be ended");
    });
    this.#underWay.add(done);
    void done.finally(() => this.#underWay.delete(done));
  }

  /** Tried again for as long as a host agent needs to start: the process may have been left because it stopped. */
  async #signal(process: FollowedProcess, name: SignalName): Promise<void> {
    let failure: unknown;
    const sent = await pollUntil(
      async () => {
        try {
          await process.signal(name);
          return true;
        } catch (error) {
          if (!(error instanceof WrennError && error.retryable) || this.#closing.signal.aborted) throw error;
          failure = error;
          return null;
        }
      },
      { timeoutMs: deadlines.commandReconnect, intervalMs: retryMs },
    );
    if (sent === null) throw failure;
  }
}
