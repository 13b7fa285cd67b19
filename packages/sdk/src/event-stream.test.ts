import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { EventStream } from "./event-stream.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A stream that says something when told to. */
function source() {
  const waiting: ((event: string) => void)[] = [];
  let signal: AbortSignal | undefined;
  const headers = new Headers();
  const stream = new EventStream<string>(headers, (options) => {
    signal = options.signal;
    return (async function* () {
      for (;;) yield await new Promise<string>((resolve) => waiting.push(resolve));
    })();
  });
  return { stream, headers, say: (event: string) => waiting.shift()?.(event), signal: () => signal };
}

it("a stream that falls silent is given up, one that speaks now and then is not", async () => {
  const { stream, headers, say, signal } = source();
  expect(headers.get("keepalive-ping-interval")).toBe("50");
  for (let count = 0; count < 5; count += 1) {
    const next = stream.next();
    await vi.advanceTimersByTimeAsync(100_000);
    say("here");
    expect(await next).toEqual({ done: false, value: "here" });
  }
  expect(vi.getTimerCount()).toBe(0);
  const silent = stream.next();
  const outcome = silent.catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(200_000);
  expect(await outcome).toMatchObject({ name: "ConnectionError", code: "connection_lost" });
  expect(signal()?.aborted).toBe(true);
  expect(vi.getTimerCount()).toBe(0);
});

it("silence counts only while somebody listens", async () => {
  const { stream, say } = source();
  const first = stream.next();
  await vi.advanceTimersByTimeAsync(0);
  say("one");
  await first;
  await vi.advanceTimersByTimeAsync(3_600_000);
  const second = stream.next();
  await vi.advanceTimersByTimeAsync(0);
  say("two");
  expect(await second).toMatchObject({ value: "two" });
});
