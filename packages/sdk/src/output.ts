/** Output of a process on its way to whoever asked for it: as bytes, and as text in which no character is torn. */
import type { ProcessListener } from "./process-stream.ts";
import { concatenate } from "./input-queue.ts";

/**
 * Called with each piece of output, one at a time: what it returns is awaited before more is read, so that a slow listener
 * slows the command down. One that takes nothing for 30 seconds while others follow the same command may lose output: see
 * `onReconnect`.
 * @param bytes as the command wrote them
 * @param text the same decoded; a character that two pieces share comes with the second. What is no UTF-8 is replaced.
 */
export type OutputListener = (bytes: Uint8Array, text: string) => void | Promise<void>;

export interface OutputListeners {
  onStdout?: OutputListener | undefined;
  onStderr?: OutputListener | undefined;
  onReconnect?: (() => void) | undefined;
}

export function listenWith({ onStdout, onStderr, onReconnect }: OutputListeners): ProcessListener {
  const listeners = { stdout: decoding(onStdout), stderr: decoding(onStderr) };
  return {
    deliver: (stream, bytes) => listeners[stream]?.(bytes),
    finish: async () => {
      await listeners.stdout?.(null);
      await listeners.stderr?.(null);
    },
    onReconnect,
  };
}

/** `null` is the end: half a character that is left over is handed on as replaced. */
function decoding(
  listener: OutputListener | undefined,
): ((bytes: Uint8Array | null) => void | Promise<void>) | undefined {
  if (listener === undefined) return undefined;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return (bytes) => {
    if (bytes !== null) return listener(bytes, decoder.decode(bytes, { stream: true }));
    const rest = decoder.decode();
    return rest === "" ? undefined : listener(new Uint8Array(), rest);
  };
}

/** The beginning of a stream, up to a bound. */
export class CollectedOutput {
  readonly #maxBytes: number;
  readonly #pieces: Uint8Array[] = [];
  #size = 0;
  /** True when there was more than fits. */
  truncated = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  add(bytes: Uint8Array): void {
    const kept = bytes.subarray(0, this.#maxBytes - this.#size);
    this.#size += kept.byteLength;
    if (kept.byteLength > 0) this.#pieces.push(kept);
    if (kept.byteLength < bytes.byteLength) this.truncated = true;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return concatenate(this.#pieces);
  }
}

export function decodeText(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
