/** Two things that are asked of one sandbox at once: the same are one, others wait or are refused, and a destroy wins. */
import { hostAgentProto, newId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Interruptible, interruptibles } from "../testing/interruptible.ts";
import { chosen, codeOf, nameOf, stepsOf } from "../testing/interruption.ts";
import { Stage } from "../testing/stage.ts";

const { SandboxState } = hostAgentProto;

const longMs = 600_000;

let stage: Stage;

beforeAll(async () => {
  stage = await Stage.open();
});

afterAll(async () => {
  await stage.agent.remove();
});

/** Resolves with the code that a call fails with, or null. */
async function failure(call: Promise<unknown>): Promise<string | null> {
  try {
    await call;
    return null;
  } catch (error) {
    return codeOf(error);
  }
}

/** Waits until the step that is to be held is held. */
async function held(): Promise<void> {
  const met = await pollUntil(async () => (stage.faulty.isArmed ? null : true), { timeoutMs: 20_000 });
  expect(met).toBe(true);
}

it("two pauses are one, and so are two resumes", async () => {
  await stage.bring("running");
  stage.faulty.forgetSteps();
  await Promise.all([stage.pause(), stage.pause()]);
  expect(stage.faulty.steps(["pause"]).filter(({ step }) => step === "commit")).toHaveLength(1);
  stage.faulty.forgetSteps();
  await Promise.all([stage.resume(), stage.resume()]);
  expect(stage.faulty.steps(["resume"]).filter(({ step }) => step === "commit")).toHaveLength(1);
  expect(await stage.losses()).toEqual([]);
});

it("nothing else is begun while a pause is under way, and that says so", async () => {
  await stage.bring("running");
  stage.faulty.meet({ operation: "pause", step: "freeze", at: "after", how: "hold" });
  const pausing = stage.pause();
  await held();
  expect(await stage.stateOf(stage.id)).toBe(SandboxState.PAUSING);
  expect(await failure(stage.fork())).toBe("sandbox_busy");
  expect(await failure(stage.snapshot())).toBe("sandbox_busy");
  expect(await failure(stage.resume())).toBe("sandbox_busy");
  stage.faulty.release();
  await pausing;
  expect(await stage.losses()).toEqual([]);
  expect(await stage.leaks()).toEqual([]);
});

/** Operations that a destroy may meet, and whose answer is for a caller to wait for. */
const met = interruptibles.filter(({ name }) =>
  /^(pausing|resuming|taking a snapshot of a running|forking a running|booting|rolling)/.test(name),
);

describe("a destroy wins over what is under way:", () => {
  it.each(met)("$name", { timeout: longMs }, async (interruptible: Interruptible) => {
    const { steps, flaws } = await stepsOf(stage, interruptible);
    expect(flaws).toEqual([]);
    const outcomes: Record<string, unknown> = {};
    const points = steps.filter(({ operation }) => operation !== "create" && operation !== "snapshot");
    for (const { operation, step } of chosen(points, 4)) {
      await stage.bring(interruptible.state);
      const { id } = stage;
      stage.faulty.meet({ operation, step, at: "before", how: "hold" });
      const acting = failure(interruptible.attempt(stage).act());
      await held();
      const destroying = stage.destroy(id);
      stage.faulty.release();
      await destroying;
      await acting;
      outcomes[nameOf({ operation, step })] = await stage.stateOf(id);
    }
    expect(Object.values(outcomes).filter((state) => state !== null)).toEqual([]);
    await stage.clear();
    expect(await stage.leaks()).toEqual([]);
  });
});

it("a copy that is destroyed while it is made is gone, and its source is as it was", async () => {
  await stage.bring("running");
  const copy = newId("sandbox");
  stage.faulty.meet({ operation: "create", step: "restore", at: "before", how: "hold" });
  const forking = failure(stage.fork(copy));
  await held();
  const destroying = stage.destroy(copy);
  stage.faulty.release();
  await destroying;
  expect(await forking).not.toBeNull();
  expect(await stage.stateOf(copy)).toBeNull();
  expect(await stage.losses()).toEqual([]);
  expect(await stage.leaks()).toEqual([]);
});
