/**
 * Several sandboxes that are paused and resumed all the time, while any of them may be destroyed at any moment. Longer:
 * WRENN_CHURN_SECONDS=3600.
 */
import { setTimeout as delay } from "node:timers/promises";
import fc from "fast-check";
import { afterAll, beforeAll, expect, it } from "vitest";
import { failureOf } from "../testing/failure.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { descriptorsOf, leftoversOf } from "../testing/leftovers.ts";
import { forget, TestSandbox } from "../testing/test-sandbox.ts";
import { ModelledGuest } from "./testing/modelled-guest.ts";

const seconds = Number(process.env["WRENN_CHURN_SECONDS"] ?? 20);
const sandboxes = 3;

/** After so many pauses and resumes a sandbox is destroyed, so far into the next one. */
const life = fc.record({ operations: fc.nat(6), thenMs: fc.nat(800) });
type Life = typeof life extends fc.Arbitrary<infer Value> ? Value : never;

/** What an operation says that a destroy was faster than. */
const overtaken = ["none", "sandbox_state_conflict", "sandbox_not_found", "sandbox_busy"];

async function live(sandbox: TestSandbox, guest: ModelledGuest, { operations, thenMs }: Life): Promise<void> {
  const destroyed = new AbortController();
  const end = async (): Promise<void> => {
    await delay(thenMs);
    destroyed.abort();
    await sandbox.destroy();
  };
  let ended = Promise.resolve();
  for (let done = 0; !destroyed.signal.aborted; done++) {
    if (done === operations) ended = end();
    const operation = done % 2 === 0 ? "pause" : "resume";
    const failure = await failureOf(sandbox[operation]());
    expect(destroyed.signal.aborted ? overtaken : ["none"]).toContain(failure);
    if (operation === "pause") continue;
    const flaws = await guest.flaws(sandbox.run).catch((error: unknown) => [String(error)]);
    expect(destroyed.signal.aborted ? [] : flaws).toEqual([]);
  }
  await ended;
  await expect(failureOf(sandbox.describe())).resolves.toBe("sandbox_not_found");
}

let agent: TestHostAgent;

beforeAll(async () => {
  agent = await TestHostAgent.prepare({ WRENN_SLOT_POOL: "1" });
  await agent.start();
});

afterAll(async () => {
  await agent.remove();
});

it(
  "sandboxes that pause and resume all the time keep what they have, and are destroyed at any moment",
  async () => {
    const origin = await TestSandbox.create(agent);
    const guest = await ModelledGuest.begin(origin.run);
    await guest.remember(origin.run, { does: "fill", first: 0, count: 1_000, stride: 2, seed: 3 });
    await guest.write(origin.run, "file", 4, 100_000, false);
    const template = await origin.keep();
    await origin.destroy();
    const descriptors = await descriptorsOf(agent);

    const until = performance.now() + seconds * 1_000;
    const lives = fc.sample(life, { seed: 2_026, numRuns: 10_000 });
    const lane = async (): Promise<void> => {
      while (performance.now() < until) {
        await live(await TestSandbox.copyOf(agent, template), guest, lives.pop() ?? { operations: 0, thenMs: 0 });
      }
    };
    await Promise.all(Array.from({ length: sandboxes }, lane));
    await forget(agent, template);
    expect(await leftoversOf(agent, 1, descriptors)).toEqual([]);
  },
  (seconds + 180) * 1_000,
);
