/**
 * Steps and writes that fail, one at a time, in anything that a host agent does to a sandbox: what it was before, it is then, and the same
 * succeeds afterwards. WRENN_FAULT_POINTS=all takes every write there is; else it is every few, from the number on that it names.
 */
import { readdir } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EndedStep, Fault } from "../testing/faults.ts";
import { type Interruptible, interruptibles } from "../testing/interruptible.ts";
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

/** Each call that changes the disk fails, as on a full one, and each step fails after it has been done. */
function failures(steps: readonly EndedStep[]): Fault[] {
  return [
    ...steps.flatMap(({ operation, step, calls }) =>
      Array.from({ length: calls }, (_, index): Fault => ({ operation, step, at: index + 1, how: "ENOSPC" })),
    ),
    ...steps.map(({ operation, step }): Fault => ({ operation, step, at: "after", how: "EIO" })),
  ];
}

async function descriptors(): Promise<number> {
  return (await readdir(`/proc/${stage.agent.process?.pid}/fd`)).length;
}

/** What is done in the background has nobody to fail before. */
const foreground = interruptibles.filter(({ name }) => !/death|deleting|folding|destroying/.test(name));
const background = interruptibles.filter((interruptible) => !foreground.includes(interruptible));

async function failEverywhere(interruptible: Interruptible): Promise<void> {
  const { steps, flaws } = await stepsOf(stage, interruptible);
  expect(flaws).toEqual([]);
  const before = await descriptors();
  const found: Record<string, string[]> = {};
  for (const fault of chosen(failures(steps), 24)) {
    const { happened, outcome, code, flaws } = await interrupted(stage, fault, interruptible);
    found[`${fault.how} ${fault.at} ${nameOf(fault)}`] = [
      ...(happened ? [] : ["not met"]),
      ...(fault.how === "ENOSPC" && outcome === "refused" && code !== "host_out_of_disk" ? [`refused as ${code}`] : []),
      ...(await flaws()),
    ];
  }
  expect(Object.entries(found).filter(([, flaws]) => flaws.length > 0)).toEqual([]);
  const { flaws: later } = await stepsOf(stage, interruptible);
  expect(later).toEqual([]);
  expect(await stage.leaks()).toEqual([]);
  await expect.poll(descriptors).toBeLessThanOrEqual(before);
}

describe("a write that fails at any step leaves everything as it was, and leaves nothing:", () => {
  it.each(foreground)("$name", { timeout: longMs }, failEverywhere);
});

describe("a write that fails at any step keeps nothing from being freed in the end:", () => {
  it.each(background)("$name", { timeout: longMs }, failEverywhere);

  it("nothing is left once everything is destroyed", async () => {
    await stage.clear();
    expect(await stage.leaks()).toEqual([]);
  });
});
