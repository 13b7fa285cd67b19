import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { WrennError } from "@wrenn/contract";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { SetupStep } from "./step.ts";
import { runSetupSteps } from "./step-runner.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-steps-"));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** A step that is done once it has run to its end. */
function step(name: string, work: (signal: AbortSignal) => Promise<void> = async () => undefined): SetupStep {
  let done = false;
  return {
    name,
    expectedSeconds: 1,
    needsRoot: false,
    isDone: async () => done,
    run: async ({ say, signal }) => {
      say("under way");
      await work(signal);
      done = true;
    },
  };
}

async function setUp(steps: readonly SetupStep[], signal = new AbortController().signal): Promise<string> {
  let shown = "";
  const output = {
    write: (text: string) => {
      shown += text;
    },
  };
  await runSetupSteps({ steps, lockFile: path.join(directory, "run", "setup.lock"), output, signal });
  return shown;
}

describe("setting up", () => {
  it("does what is not done, in order, and says so", async () => {
    const ran: string[] = [];
    const steps = ["first", "second"].map((name) =>
      step(name, async () => {
        ran.push(name);
      }),
    );
    const shown = await setUp(steps);
    expect(ran).toEqual(["first", "second"]);
    expect(shown).toMatch(
      /^\[1\/2\] first \(about 1 s\)\n +done in .*\n\[2\/2\] second .*\n.*\nThis machine is set up/s,
    );
  });

  it("says nothing when all is done", async () => {
    const steps = [step("first")];
    await setUp(steps);
    expect(await setUp(steps)).toBe("");
  });

  it("goes on with the step that failed", async () => {
    let attempts = 0;
    const first = step("first");
    const second = step("second", async () => {
      attempts += 1;
      if (attempts === 1) throw new WrennError("subprocess_failed", { message: "cc exited with 1" });
    });
    const failure = await setUp([first, second]).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "setup_failed", message: "second failed: cc exited with 1" });
    const shown = await setUp([first, second]);
    expect(shown).not.toContain("[1/2]");
    expect(shown).toContain("[2/2] second");
  });

  it("keeps an error that says what to do", async () => {
    const missing = step("first", async () => {
      throw new WrennError("dependency_missing", { message: "cargo is not installed." });
    });
    await expect(setUp([missing])).rejects.toMatchObject({ code: "dependency_missing" });
  });

  it("waits for another that is under way, and repeats nothing of it", async () => {
    let ran = 0;
    const slow = step("slow", async () => {
      ran += 1;
      await delay(300);
    });
    const shown = await Promise.all([setUp([slow]), setUp([slow])]);
    expect(ran).toBe(1);
    expect(shown.filter((text) => text.includes("waiting for it"))).toHaveLength(1);
  });

  it("gives the lock back when it is interrupted", async () => {
    const interruption = new AbortController();
    const endless = step("endless", (signal) => delay(60_000, undefined, { signal }));
    const running = setUp([endless], interruption.signal);
    setTimeout(() => {
      interruption.abort(new WrennError("setup_failed", { message: "interrupted" }));
    }, 100);
    await expect(running).rejects.toThrow("interrupted");
    expect(await setUp([step("next")])).not.toContain("waiting");
  });

  it("refuses to begin without the disk space for all of it", async () => {
    let ran = false;
    const small = step("small", async () => {
      ran = true;
    });
    const large = { ...step("large"), disk: { path: path.join(directory, "not", "there", "yet"), bytes: 2 ** 60 } };
    const failure = await setUp([small, large]).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "host_out_of_disk" });
    expect(failure).toHaveProperty("suggestion", expect.stringContaining("WRENN_DIR"));
    expect(ran).toBe(false);
  });

  it("says that the disk is full when a step finds it so", async () => {
    const full = {
      ...step("copying", async () => {
        throw Object.assign(new Error("write failed"), { code: "ENOSPC" });
      }),
      disk: { path: directory, bytes: 1 },
    };
    await expect(setUp([full])).rejects.toMatchObject({ code: "host_out_of_disk" });
  });
});
