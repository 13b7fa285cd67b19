/**
 * A host agent that is killed, or asked to stop, at any step of anything that it does to a sandbox: the next one finds the sandbox as it
 * was before, or as it was to be. WRENN_FAULT_POINTS=all takes every step there is; else it is every few, from the number on that it names.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EndedStep, Fault } from "../testing/faults.ts";
import { interruptibles } from "../testing/interruptible.ts";
import { chosen, interrupted, nameOf, stepsOf } from "../testing/interruption.ts";
import { Stage } from "../testing/stage.ts";

const longMs = 1_200_000;

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open();
});

afterAll(async () => {
  await stage.agent.remove();
});

/** Before the first step, and after each. */
function boundaries(steps: readonly EndedStep[], how: Fault["how"]): Fault[] {
  const [first] = steps;
  const after = steps.map(({ operation, step }): Fault => ({ operation, step, at: "after", how }));
  return first === undefined ? [] : [{ operation: first.operation, step: first.step, at: "before", how }, ...after];
}

describe("a host agent that ends at any step loses nothing and leaves nothing:", () => {
  it.each(interruptibles)("$name", { timeout: longMs }, async (interruptible) => {
    const { steps, flaws } = await stepsOf(stage, interruptible);
    expect(flaws).toEqual([]);
    expect(steps.map(nameOf)).not.toEqual([]);
    const found: Record<string, string[]> = {};
    for (const fault of [...chosen(boundaries(steps, "kill"), 8), ...chosen(boundaries(steps, "stop"), 24)]) {
      const { happened, flaws } = await interrupted(stage, fault, interruptible);
      found[`${fault.how} ${fault.at} ${nameOf(fault)}`] = [...(happened ? [] : ["not met"]), ...(await flaws())];
    }
    expect(Object.entries(found).filter(([, flaws]) => flaws.length > 0)).toEqual([]);
    expect(await stage.leaks()).toEqual([]);
  });

  it("nothing is left once everything is destroyed", async () => {
    await stage.clear();
    expect(await stage.leaks()).toEqual([]);
  });
});
