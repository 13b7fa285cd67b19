/** The end of what was written: leaving the process drops whatever a pipe has not taken yet. */
import type { Writable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";

/** How long what is left over may still take once nobody wants to wait for it any more. */
const lastWordsMs = 1_000;

let abandoned = false;

/**
 * Resolves once the reader of each stream has taken everything, or is gone. When `signal` aborts, a reader that has
 * stopped reading is not waited for, neither now nor by a later call.
 */
export async function flushOutput(
  signal?: AbortSignal,
  streams: readonly Writable[] = [process.stdout, process.stderr],
): Promise<void> {
  if (abandoned) return;
  const flushed = Promise.all(streams.map(flush)).then(() => true);
  abandoned = !(await Promise.race(signal === undefined ? [flushed] : [flushed, whenGivenUp(signal)]));
}

async function flush(stream: Writable): Promise<void> {
  await new Promise<void>((resolve) => {
    // A stream whose reader is gone may never call back.
    stream.once("close", resolve);
    stream.write("", () => {
      stream.off("close", resolve);
      resolve();
    });
  });
}

async function whenGivenUp(signal: AbortSignal): Promise<false> {
  if (!signal.aborted) {
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  return delay(lastWordsMs, false);
}
