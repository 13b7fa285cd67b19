/** Signals sent to `wrenn run`: handed on to the command, and a way out when it does not heed them. */
import { constants } from "node:os";
import { deadlines } from "@wrenn/contract";
import type { CommandHandle } from "@wrenn/sdk";

const handled = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;
export type Interrupt = (typeof handled)[number];

/** Why a run was given up before its command had ended. */
export class GivenUp extends Error {
  /** What the run exits with. */
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.name = "GivenUp";
    this.exitCode = exitCode;
  }
}

export class Interrupts {
  readonly #giveUp = new AbortController();
  #command: Pick<CommandHandle, "kill"> | null = null;
  #destroying = false;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    for (const signal of handled) process.on(signal, this.#receive);
  }

  /** Aborts when the run should end now, whatever the command does: with a `GivenUp`, or what keeps the run from going on. */
  get signal(): AbortSignal {
    return this.#giveUp.signal;
  }

  /**
   * Rejects when `signal` aborts. What is waited for is raced with this: a signal that a client derives from ours may be
   * collected as garbage and never abort (nodejs/node#57736).
   */
  async givenUp(): Promise<never> {
    return new Promise((_resolve, reject) => {
      const abort = (): void => {
        reject(this.signal.reason instanceof Error ? this.signal.reason : new Error("given up"));
      };
      if (this.signal.aborted) abort();
      else this.signal.addEventListener("abort", abort, { once: true });
    });
  }

  giveUp(reason: Error): void {
    this.#giveUp.abort(reason);
  }

  /** From now on a first signal is the command's own to answer. */
  forwardTo(command: Pick<CommandHandle, "kill">): void {
    this.#command = command;
  }

  /** The command has ended: from now on a first signal is enough to give up. */
  commandEnded(): void {
    this.#command = null;
    clearTimeout(this.#timer);
  }

  /** From now on the sandbox is being destroyed; one more signal ends this process without waiting for that. */
  destroying(): void {
    this.#destroying = true;
    clearTimeout(this.#timer);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const signal of handled) process.off(signal, this.#receive);
  }

  readonly #receive = (signal: Interrupt): void => {
    const exitCode = 128 + constants.signals[signal];
    const reason = new GivenUp(`interrupted by ${signal}`, exitCode);
    if (this.#destroying) {
      // The server destroys the sandbox of a run whose process is gone.
      process.exit(exitCode);
    }
    if (this.#command === null || this.#timer !== undefined) {
      this.giveUp(reason);
      return;
    }
    this.#timer = setTimeout(() => {
      this.giveUp(reason);
    }, deadlines.commandInterrupt);
    this.#command.kill(signal).catch(() => {
      // It has ended, which `wait` tells, or cannot be reached, for which there is the timer.
    });
  };
}
