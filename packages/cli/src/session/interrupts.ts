/** Signals sent to this process while it does something for its user: handed on to a command, or a reason to stop and tidy up. */
import { constants } from "node:os";
import { deadlines, type SignalName } from "@wrenn/contract";

const handled = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const satisfies readonly SignalName[];
export type Interrupt = (typeof handled)[number];

/** Whatever takes signals: a command, a terminal. */
export interface Signalled {
  kill(signal: SignalName): Promise<unknown>;
}

/** Why something was given up before it had ended. */
export class GivenUp extends Error {
  /** What this process exits with. */
  readonly exitCode: number;

  constructor(message: string, exitCode: number) {
    super(message);
    this.name = "GivenUp";
    this.exitCode = exitCode;
  }
}

/** Runs what a signal may end: it then fails with a `GivenUp`, whatever has failed because of that. */
export async function interruptible<Result>(work: (interrupts: Interrupts) => Promise<Result>): Promise<Result> {
  const interrupts = new Interrupts();
  try {
    return await work(interrupts);
  } catch (error) {
    throw interrupts.signal.aborted ? interrupts.signal.reason : error;
  } finally {
    interrupts.dispose();
  }
}

export class Interrupts {
  readonly #giveUp = new AbortController();
  #command: Signalled | null = null;
  #tidyingUp = false;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    for (const signal of handled) process.on(signal, this.#receive);
  }

  /** Aborts when this should end now: with a `GivenUp`, or what keeps it from going on. */
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
  forwardTo(command: Signalled): void {
    this.#command = command;
  }

  /** The command has ended: from now on a first signal is enough to give up. */
  commandEnded(): void {
    this.#command = null;
    clearTimeout(this.#timer);
  }

  /** From now on what was made is being removed; one more signal ends this process without waiting for that. */
  tidyingUp(): void {
    this.#tidyingUp = true;
    clearTimeout(this.#timer);
  }

  dispose(): void {
    clearTimeout(this.#timer);
    for (const signal of handled) process.off(signal, this.#receive);
  }

  readonly #receive = (signal: Interrupt): void => {
    const exitCode = 128 + constants.signals[signal];
    const reason = new GivenUp(`interrupted by ${signal}`, exitCode);
    if (this.#tidyingUp) {
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
