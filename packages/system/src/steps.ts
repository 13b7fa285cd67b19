/** An operation of several steps, each with its undo: run in order, unwound in reverse when one fails. */
import { WrennError } from "@wrenn/contract";

export interface Step {
  readonly name: string;
  run(): Promise<void>;
  /** Called when this step or a later one failed. Must cope with a step that got half-way. */
  undo?(): Promise<void>;
}

export interface StepTiming {
  readonly step: string;
  readonly milliseconds: number;
}

/**
 * Runs the steps in order and returns how long each took. When one fails, every step begun so far is undone in reverse;
 * all undos are tried. The error thrown is the failing step's; failures of undos are attached to it as `details.undo_failures`.
 */
export async function runSteps(steps: readonly Step[]): Promise<StepTiming[]> {
  const timings: StepTiming[] = [];
  const begun: Step[] = [];
  for (const step of steps) {
    begun.push(step);
    const start = performance.now();
    try {
      await step.run();
    } catch (error) {
      const failures = await undoAll(begun);
      throw failures.length === 0 ? error : withUndoFailures(error, failures);
    }
    timings.push({ step: step.name, milliseconds: performance.now() - start });
  }
  return timings;
}

/**
 * One step out of several that do not depend on each other. When one of them fails, the others are waited for first, so that
 * nothing is still being made while it is undone.
 */
export function inParallel(name: string, steps: readonly Step[]): Step {
  return {
    name,
    run: async () => {
      const outcomes = await Promise.allSettled(steps.map((step) => step.run()));
      const failed = outcomes.find((outcome) => outcome.status === "rejected");
      if (failed !== undefined) throw failed.reason;
    },
    undo: () =>
      tryAll(
        steps.toReversed().flatMap((step) => {
          const undo = step.undo?.bind(step);
          return undo === undefined ? [] : [{ name: step.name, run: undo }];
        }),
      ),
  };
}

interface Action {
  readonly name: string;
  run(): Promise<void>;
}

/** Tries everything, one after the other, and reports all that failed, as one error. */
export async function tryAll(actions: readonly Action[]): Promise<void> {
  const failures: Error[] = [];
  for (const action of actions) failures.push(...(await attempt(action)));
  throwAll(failures);
}

/** The same for what does not depend on each other. */
export async function tryAllAtOnce(actions: readonly Action[]): Promise<void> {
  throwAll((await Promise.all(actions.map(attempt))).flat());
}

async function attempt(action: Action): Promise<Error[]> {
  try {
    await action.run();
    return [];
  } catch (error) {
    return [new Error(`${action.name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })];
  }
}

function throwAll(failures: readonly Error[]): void {
  if (failures.length === 0) return;
  throw new AggregateError(failures, failures.map((failure) => failure.message).join("; "));
}

async function undoAll(begun: readonly Step[]): Promise<Error[]> {
  const undos = begun.toReversed().flatMap((step) => {
    const undo = step.undo?.bind(step);
    return undo === undefined ? [] : [{ name: `undoing ${step.name}`, run: undo }];
  });
  try {
    await tryAll(undos);
    return [];
  } catch (error) {
    return error instanceof AggregateError ? (error.errors as Error[]) : [error as Error];
  }
}

function withUndoFailures(error: unknown, failures: readonly Error[]): WrennError {
  const undo_failures = failures.map((failure) => failure.message);
  return error instanceof WrennError
    ? new WrennError(error.code, {
        message: error.message,
        suggestion: error.suggestion,
        details: { ...error.details, undo_failures },
        cause: error,
      })
    : new WrennError("internal", { details: { undo_failures }, cause: error });
}
