/** For tests: an operation that is cut short at a step, and what is wrong afterwards. */
import { ConnectError } from "@connectrpc/connect";
import { hostAgentProto } from "@wrenn/contract";
import type { EndedStep, Fault } from "./faults.ts";
import type { Interruptible, Outcome } from "./interruptible.ts";
import type { Stage } from "./stage.ts";

/** Which of the points that there are a run of the tests takes: all, or every n-th from one on that it may name. */
export function chosen<Point>(points: readonly Point[], stride: number): Point[] {
  const choice = process.env["WRENN_FAULT_POINTS"] ?? "0";
  if (choice === "all") return [...points];
  return points.filter((_, index) => index % stride === Number(choice) % stride);
}

/** The steps that it takes when nothing disturbs it, each once, and what was wrong all the same. */
export async function stepsOf(
  stage: Stage,
  { state, operations, attempt }: Interruptible,
): Promise<{ steps: EndedStep[]; flaws: string[] }> {
  await stage.bring(state);
  stage.faulty.forgetSteps();
  // Never met: what waits for something to happen knows by it that nothing has.
  stage.faulty.meet({ operation: "none", step: "none", at: "before", how: "kill" });
  const undisturbed = attempt(stage);
  await undisturbed.act();
  const ended = stage.faulty.steps(operations);
  stage.faulty.meet();
  const steps = new Map<string, EndedStep>();
  for (const step of ended) if (!steps.has(nameOf(step))) steps.set(nameOf(step), step);
  return { steps: [...steps.values()], flaws: await undisturbed.flaws("acknowledged") };
}

export interface Interrupted {
  readonly outcome: Outcome;
  /** What it was refused with. */
  readonly code: string | null;
  /** Whether the fault has been met. */
  readonly happened: boolean;
  readonly flaws: () => Promise<string[]>;
}

/** Does it with a fault, and lets a host agent that has ended by it start again. */
export async function interrupted(stage: Stage, fault: Fault, { state, attempt }: Interruptible): Promise<Interrupted> {
  await stage.bring(state);
  stage.faulty.forgetSteps();
  const { act, flaws } = attempt(stage);
  stage.faulty.meet(fault);
  const ends = fault.how === "kill" || fault.how === "stop";
  let outcome: Outcome = "acknowledged";
  let code: string | null = null;
  try {
    await act();
  } catch (error) {
    outcome = ends ? "unheard" : "refused";
    code = codeOf(error);
  }
  const happened = !stage.faulty.isArmed;
  stage.faulty.meet();
  if (fault.how === "kill") await stage.agent.restart();
  if (fault.how === "stop") {
    await stage.agent.signal("SIGTERM");
    await stage.agent.start();
  }
  return { outcome, code, happened, flaws: () => flaws(outcome) };
}

/** The code of the registry that a call failed with. */
export function codeOf(error: unknown): string {
  const [info] = ConnectError.from(error).findDetails(hostAgentProto.ErrorInfoSchema);
  return info?.code ?? String(error);
}

export function nameOf({ operation, step }: Pick<Fault, "operation" | "step">): string {
  return `${operation}: ${step}`;
}
