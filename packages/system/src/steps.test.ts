import { WrennError } from "@wrenn/contract";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { runSteps, type Step, tryAll } from "./steps.ts";

function recordingSteps(count: number, log: string[], failAt?: number, undoFailsAt?: number): Step[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `step ${index}`,
    run: async () => {
      log.push(`run ${index}`);
      if (index === failAt) throw new WrennError("engine_failed", { message: "broke" });
    },
    undo: async () => {
      log.push(`undo ${index}`);
      if (index === undoFailsAt) throw new Error("stuck");
    },
  }));
}

describe("runSteps", () => {
  it("runs in order and times each step", async () => {
    const log: string[] = [];
    const timings = await runSteps(recordingSteps(3, log));
    expect(log).toEqual(["run 0", "run 1", "run 2"]);
    expect(timings.map((timing) => timing.step)).toEqual(["step 0", "step 1", "step 2"]);
  });

  it("undoes what was begun, in reverse, wherever it fails", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 8 }), fc.nat(), async (count, at) => {
        const failAt = at % count;
        const log: string[] = [];
        await expect(runSteps(recordingSteps(count, log, failAt))).rejects.toMatchObject({ code: "engine_failed" });
        const begun = Array.from({ length: failAt + 1 }, (_, index) => index);
        expect(log).toEqual([...begun.map((i) => `run ${i}`), ...begun.toReversed().map((i) => `undo ${i}`)]);
      }),
    );
  });

  it("tries every undo and reports those that failed beside the first error", async () => {
    const log: string[] = [];
    await expect(runSteps(recordingSteps(3, log, 2, 1))).rejects.toMatchObject({
      code: "engine_failed",
      message: "broke",
      details: { undo_failures: ["undoing step 1: stuck"] },
    });
    expect(log.at(-1)).toBe("undo 0");
  });
});

describe("tryAll", () => {
  it("tries everything and reports all that failed", async () => {
    const tried: string[] = [];
    const failing = (name: string) => ({
      name,
      run: async () => {
        tried.push(name);
        throw new Error("no");
      },
    });
    await expect(tryAll([failing("a"), failing("b")])).rejects.toThrow("a: no; b: no");
    expect(tried).toEqual(["a", "b"]);
  });
});
