import { Writable } from "node:stream";
import { expect, it } from "vitest";
import { flushOutput } from "./flush.ts";

/** A stream whose reader takes each piece when told to. */
function slowReader(): { stream: Writable; taken: string[]; take: () => void } {
  const waiting: (() => void)[] = [];
  const taken: string[] = [];
  const stream = new Writable({
    decodeStrings: false,
    write: (chunk: string, _encoding, done) => {
      waiting.push(() => {
        if (chunk !== "") taken.push(chunk);
        done();
      });
    },
  });
  return { stream, taken, take: () => waiting.shift()?.() };
}

it("output is not left before its reader has taken all of it", async () => {
  const { stream, taken, take } = slowReader();
  stream.write("one");
  stream.write("two");
  let flushed = false;
  const flushing = flushOutput(undefined, [stream]).then(() => (flushed = true));
  take();
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(flushed).toBe(false);
  const taking = setInterval(take, 1);
  await flushing;
  clearInterval(taking);
  expect(taken).toEqual(["one", "two"]);
});

it("output whose reader is gone is not waited for", async () => {
  const { stream } = slowReader();
  stream.on("error", () => undefined);
  stream.write("one");
  const flushing = flushOutput(undefined, [stream]);
  stream.destroy();
  await expect(flushing).resolves.toBeUndefined();
});

// The last test: it gives the output of this process up.
it("a reader that has stopped reading does not hold back what was given up", async () => {
  const { stream } = slowReader();
  stream.write("one");
  await flushOutput(AbortSignal.abort(), [stream]);
  await expect(flushOutput(undefined, [stream])).resolves.toBeUndefined();
});
