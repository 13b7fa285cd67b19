/** Where a command's output goes: straight to ours, byte for byte and no faster than it is read; or into the JSON result. */
import { once } from "node:events";
import { constants } from "node:os";
import type { Writable } from "node:stream";
import { GivenUp, type Interrupts } from "./interrupts.ts";

export interface OutputSink {
  stdout(bytes: Uint8Array): Promise<void>;
  stderr(bytes: Uint8Array): Promise<void>;
}

/** Output that is streamed, until nobody reads it any more: that is a reason to give up. */
export function streamedOutput(interrupts: Interrupts): OutputSink {
  const to =
    (stream: Writable) =>
    async (bytes: Uint8Array): Promise<void> => {
      if (stream.destroyed || stream.write(bytes)) return;
      // A stream that is closed never drains.
      await Promise.race([once(stream, "drain"), once(stream, "close")]);
    };
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", () => {
      stream.destroy();
      interrupts.giveUp(new GivenUp("the output was closed", 128 + constants.signals.SIGPIPE));
    });
  }
  return { stdout: to(process.stdout), stderr: to(process.stderr) };
}

/** Bytes of each stream that a JSON result can hold. */
const maxCapturedBytes = 16 * 1_048_576;

export class CapturedOutput implements OutputSink {
  readonly #stdout = new Capture();
  readonly #stderr = new Capture();

  stdout(bytes: Uint8Array): Promise<void> {
    this.#stdout.add(bytes);
    return Promise.resolve();
  }

  stderr(bytes: Uint8Array): Promise<void> {
    this.#stderr.add(bytes);
    return Promise.resolve();
  }

  /** Bytes that are no UTF-8 are replaced; what does not fit is counted. */
  toJson(): Record<string, unknown> {
    return {
      stdout: this.#stdout.text(),
      stdout_bytes_left_out: this.#stdout.bytesLeftOut,
      stderr: this.#stderr.text(),
      stderr_bytes_left_out: this.#stderr.bytesLeftOut,
    };
  }
}

class Capture {
  readonly #chunks: Uint8Array[] = [];
  #size = 0;
  bytesLeftOut = 0;

  add(bytes: Uint8Array): void {
    const kept = bytes.subarray(0, Math.max(0, maxCapturedBytes - this.#size));
    this.#chunks.push(kept);
    this.#size += kept.length;
    this.bytesLeftOut += bytes.length - kept.length;
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString("utf8");
  }
}
