/** Steps of an operation that can be aborted between two of them, and how long each took. */
import type { Step, StepTiming } from "@wrenn/system";
import type { RunStep } from "../run-step.ts";

export class StepClock {
  readonly timings: StepTiming[] = [];
  readonly #operation: string;
  readonly #runStep: RunStep;
  readonly #signal: AbortSignal | null;

  /** @param signal null for an operation that goes on to its end */
  constructor({ runStep }: { readonly runStep: RunStep }, operation: string, signal: AbortSignal | null) {
    this.#operation = operation;
    this.#runStep = runStep;
    this.#signal = signal;
  }

  /** The step, not begun once the operation has been aborted, and with its time noted when it is done. */
  step<Named extends Step>(step: Named): Named {
    const { name } = step;
    const undo = step.undo?.bind(step);
    return {
      ...step,
      run: async () => {
        this.#signal?.throwIfAborted();
        const start = performance.now();
        await this.#runStep(this.#operation, name, () => step.run());
        this.timings.push({ step: name, milliseconds: performance.now() - start });
      },
      ...(undo === undefined ? {} : { undo: () => this.#runStep(this.#operation, `undo ${name}`, undo) }),
    };
  }
}
