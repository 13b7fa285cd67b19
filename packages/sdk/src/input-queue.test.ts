import { expect, it } from "vitest";
import { InputQueue } from "./input-queue.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A receiver that takes one message when told to. */
function receiver() {
  const messages: string[] = [];
  const waiting: { take: () => void; fail: (error: Error) => void }[] = [];
  const queue = new InputQueue(async (message) => {
    messages.push(new TextDecoder().decode(message));
    await new Promise<void>((take, fail) => waiting.push({ take, fail }));
  });
  return { queue, messages, waiting };
}

it("what is typed while a message is under way goes together as the next, in order", async () => {
  const { queue, messages, waiting } = receiver();
  const writes = ["a", "b", "c", "d"].map((text) => queue.write(bytes(text)));
  expect(messages).toEqual(["a"]);
  waiting.shift()?.take();
  await writes[0];
  await expect.poll(() => messages).toEqual(["a", "bcd"]);
  waiting.shift()?.take();
  await Promise.all(writes);
  const later = queue.write(bytes("e"));
  expect(messages).toEqual(["a", "bcd", "e"]);
  waiting.shift()?.take();
  await later;
});

it("much input is sent in messages of a bounded size", async () => {
  const sizes: number[] = [];
  const queue = new InputQueue(async (message) => {
    sizes.push(message.byteLength);
    return Promise.resolve();
  });
  await queue.write(new Uint8Array(600_000));
  expect(sizes).toEqual([262_144, 262_144, 75_712]);
});

it("input that fails takes what waited behind it along, and what comes later is tried", async () => {
  const { queue, messages, waiting } = receiver();
  const writes = ["a", "b"].map((text) => queue.write(bytes(text)));
  const outcomes = Promise.allSettled(writes);
  waiting.shift()?.fail(new Error("gone"));
  expect((await outcomes).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  const later = queue.write(bytes("c"));
  waiting.shift()?.take();
  await later;
  expect(messages).toEqual(["a", "c"]);
});

it("is settled when nothing is under way, whether it was taken or not", async () => {
  const { queue, waiting } = receiver();
  await queue.settled();
  const write = queue.write(bytes("a"));
  let settled = false;
  const waits = queue.settled().then(() => (settled = true));
  await Promise.resolve();
  expect(settled).toBe(false);
  waiting.shift()?.fail(new Error("gone"));
  await expect(write).rejects.toThrow("gone");
  await waits;
});
