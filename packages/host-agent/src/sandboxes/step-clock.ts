/** Steps of an operation that can be aborted between two of them, and how long each took. */
import type { Step, StepTiming } from "@wrenn/system";

export class StepClock {
  readonly timings: StepTiming[] = [];
  readonly #signal: AbortSignal;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** The step, not begun once the operation has been aborted, and with its time noted when it is done. */
  step(step: Step): Step {
    return {
      ...step,
      run: async () => {
        this.#signal.throwIfAborted();
        const start = performance.now();
        await step.run();
        this.timings.push({ step: step.name, milliseconds: performance.now() - start });
      },
    };
  }
}
