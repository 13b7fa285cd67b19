/** For tests: what can happen to sandboxes and their host agent. Which sandbox is meant, depends on which there are then. */
import fc from "fast-check";
import { ballastPages } from "../../testing/ballast.ts";

/** Any number as likely as any other: small ones are not where the trouble is. */
const below = (bound: number): fc.Arbitrary<number> => fc.noBias(fc.nat(bound - 1));

const which = below(12);
const page = below(ballastPages);
const seed = fc.integer({ min: 1, max: 0x7f_ff_ff_ff });
const fileName = fc.constantFrom("a", "b", "c", "d");
const operation = fc.constantFrom("create", "pause", "resume", "fork", "snapshot", "destroy");

/** One thing that happens to one of the sandboxes, or to the host agent. */
export const event = fc.oneof(
  { weight: 2, arbitrary: fc.record({ does: fc.constant("create"), snapshot: which }) },
  {
    weight: 4,
    arbitrary: fc.record({
      does: fc.constant("fill"),
      which,
      first: page,
      count: below(2_048),
      stride: fc.constantFrom(1, 1, 2, 7),
      seed,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constantFrom("zero", "drop"),
      which,
      first: page,
      count: below(3_000),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ does: fc.constantFrom("write", "append"), which, fileName, seed, bytes: below(400_000) }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("remove"), which, fileName }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("reread"), which }) },
  { weight: 4, arbitrary: fc.record({ does: fc.constant("pause"), which }) },
  { weight: 4, arbitrary: fc.record({ does: fc.constant("resume"), which }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("fork"), which, copies: fc.integer({ min: 1, max: 2 }) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("snapshot"), which }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("delete snapshot"), which }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant("destroy"), which }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("lose the VM"), which }) },
  { weight: 1, arbitrary: fc.record({ does: fc.constant("kill the host agent") }) },
  {
    weight: 3,
    arbitrary: fc.record({ does: fc.constant("kill the host agent during"), operation, which, afterMs: below(600) }),
  },
);
export type Event = typeof event extends fc.Arbitrary<infer Value> ? Value : never;
