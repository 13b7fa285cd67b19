/** Background work that runs on a timer and when nudged, one round at a time, and that no stuck round can stop. */
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";

export interface PeriodicTaskOptions {
  readonly name: string;
  readonly intervalMs: number;
  /** A round that takes longer is given up: its signal is aborted and the next round begins. */
  readonly deadlineMs: number;
  readonly log: Logger;
  run(signal: AbortSignal): Promise<void>;
}

export class PeriodicTask {
  readonly #options: PeriodicTaskOptions;
  #isStopping = false;
  #current: AbortController | undefined;
  #wake: () => void = () => undefined;
  #nudged = false;
  #loop: Promise<void> | undefined;

  constructor(options: PeriodicTaskOptions) {
    this.#options = options;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Has the next round begin soon. Many nudges make one round. */
  nudge(): void {
    this.#nudged = true;
    this.#wake();
  }

  /** Aborts the round under way and waits until it has ended, or been given up. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#current?.abort();
    this.#wake();
    await this.#loop;
  }

  async #run(): Promise<void> {
    while (!this.#isStopping) {
      this.#nudged = false;
      await this.#round();
      await this.#rest();
    }
  }

  async #round(): Promise<void> {
    const { name, deadlineMs, log } = this.#options;
    const round = new AbortController();
    const { signal } = round;
    this.#current = round;
    const deadline = delay(deadlineMs, "late" as const, { signal }).catch(() => "stopped" as const);
    try {
      const work = this.#options.run(signal).then(() => "done" as const);
      // A round that was given up may still fail later, when nobody waits for it.
      work.catch(() => undefined);
      const outcome = await Promise.race([work, deadline]);
      if (outcome === "late")
        log.error({ task: name, deadlineMs }, "a round of background work was stuck and given up");
    } catch (error) {
      if (!this.#isStopping) log.error({ task: name, err: error }, "a round of background work failed");
    } finally {
      round.abort();
    }
  }

  /** A tenth of the interval passes in any case, so that a storm of nudges is not a storm of rounds. */
  async #rest(): Promise<void> {
    const { intervalMs } = this.#options;
    await this.#sleep(intervalMs / 10, () => this.#isStopping);
    await this.#sleep((intervalMs * 9) / 10, () => this.#nudged || this.#isStopping);
  }

  async #sleep(milliseconds: number, cutShort: () => boolean): Promise<void> {
    if (cutShort()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        if (!cutShort()) return;
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
