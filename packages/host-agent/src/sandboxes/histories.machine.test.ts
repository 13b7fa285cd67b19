/**
 * Random lives of sandboxes, beside a model of what each must have. Longer, or others: WRENN_HISTORY_EVENTS (how many things happen),
 * WRENN_HISTORY_RUNS and WRENN_HISTORY_SEED; a failure names its seed.
 */
import { describeError } from "@wrenn/contract";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { descriptorsOf, leftoversOf } from "../testing/leftovers.ts";
import { event } from "./testing/events.ts";
import { History } from "./testing/history.ts";

const fromEnvironment = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise);

const events = fromEnvironment("WRENN_HISTORY_EVENTS", 20);
const numRuns = fromEnvironment("WRENN_HISTORY_RUNS", 1);
const firstSeed = fromEnvironment("WRENN_HISTORY_SEED", 2_026);

/** How long one thing may take, with the check of all that it touches, where emulated guests share a busy machine. */
const eventMs = 30_000;
const timeout = (events + 10) * eventMs;

const slotsReady = 1;

describe.each([
  { how: "mapped", memory: "file", seed: firstSeed },
  { how: "served", memory: "uffd", seed: firstSeed + 1 },
  { how: "mapped or served, as it suits", memory: "auto", seed: firstSeed + 2 },
] as const)("sandboxes whose memory is $how", ({ memory, seed }) => {
  let agent: TestHostAgent;

  beforeAll(async () => {
    agent = await TestHostAgent.prepare({ WRENN_MEMORY: memory, WRENN_SLOT_POOL: String(slotsReady) });
    await agent.start();
    // What is made once, and stays.
    const request = agent.request();
    await agent.client.createSandbox(request);
    await agent.client.destroySandbox({ sandboxId: request.sandboxId });
  });

  afterAll(async () => {
    await agent.remove();
  });

  it(
    "have every byte that they must have, whatever happens to them in whatever order, and leave nothing",
    async () => {
      await agent.restart();
      const descriptors = await descriptorsOf(agent);
      const lives = fc.asyncProperty(
        fc.array(event, { minLength: events, maxLength: events, size: "max" }),
        async (happening) => {
          const history = new History(agent, memory === "auto" ? null : memory);
          for (const [index, each] of happening.entries()) {
            await history.happen(each).catch((error: unknown) => {
              throw new Error(`${index}: ${JSON.stringify(each)}: ${describeError(error)}`, { cause: error });
            });
          }
          await history.end();
          expect(await leftoversOf(agent, slotsReady, descriptors)).toEqual([]);
        },
      );
      // A counterexample is not made smaller: that would take hours.
      await fc.assert(lives, { seed, numRuns, endOnFailure: true, timeout });
    },
    numRuns * timeout,
  );
});
