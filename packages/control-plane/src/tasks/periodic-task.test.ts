import { expect, test } from "vitest";
import { createLog } from "@wrenn/system";
import { PeriodicTask } from "./periodic-task.ts";

const silent = createLog({ level: "silent" });

function countdown(rounds: number): { readonly done: Promise<void>; tick(): void } {
  let left = rounds;
  let finish = (): void => undefined;
  const done = new Promise<void>((resolve) => {
    finish = resolve;
  });
  return {
    done,
    tick: () => {
      left -= 1;
      if (left === 0) finish();
    },
  };
}

test("a round that never settles is given up, told so, and followed by others", async () => {
  const rounds = countdown(3);
  const signals: AbortSignal[] = [];
  const logged: string[] = [];
  const task = new PeriodicTask({
    name: "stuck",
    intervalMs: 10,
    deadlineMs: 20,
    log: createLog({ level: "error", destination: { write: (line) => logged.push(line) } }),
    run: async (signal) => {
      signals.push(signal);
      rounds.tick();
      await new Promise(() => undefined);
    },
  });
  task.start();
  await rounds.done;
  await task.stop();
  expect(signals.every((signal) => signal.aborted)).toBe(true);
  expect(logged[0]).toContain("stuck and given up");
});

test("a round that fails is followed by others", async () => {
  const rounds = countdown(3);
  const logged: string[] = [];
  const task = new PeriodicTask({
    name: "failing",
    intervalMs: 10,
    deadlineMs: 1000,
    log: createLog({ level: "error", destination: { write: (line) => logged.push(line) } }),
    run: async () => {
      rounds.tick();
      throw new Error("as expected");
    },
  });
  task.start();
  await rounds.done;
  await task.stop();
  expect(logged[0]).toContain("as expected");
});

test("a nudge begins a round long before the timer does, and never two at once", async () => {
  const rounds = countdown(3);
  let running = 0;
  const task = new PeriodicTask({
    name: "nudged",
    // The tenth that passes in any case is short; the rest would outlast the test.
    intervalMs: 1_000,
    deadlineMs: 10_000,
    log: silent,
    run: async () => {
      running += 1;
      expect(running).toBe(1);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      running -= 1;
      rounds.tick();
    },
  });
  task.start();
  const nudging = setInterval(() => {
    task.nudge();
  }, 5);
  await rounds.done;
  clearInterval(nudging);
  await task.stop();
});
