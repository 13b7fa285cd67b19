/** One stream of events from the guest agent. It says now and then that it is there; one that falls silent is given up. */
import type { CallOptions } from "@connectrpc/connect";
import { failure } from "./errors.ts";

/** Seconds. Below the five minutes of silence after which HTTP clients and proxies give up on a stream. */
const keepAliveSeconds = 50;
/** Milliseconds: a keep-alive may be late in a guest that is busy, or be lost with one packet. */
const silenceMs = 2.5 * keepAliveSeconds * 1_000;

export class EventStream<Event> {
  readonly #controller = new AbortController();
  readonly #events: AsyncIterator<Event>;

  constructor(headers: Headers, open: (options: CallOptions) => AsyncIterable<Event>) {
    headers.set("keepalive-ping-interval", String(keepAliveSeconds));
    this.#events = open({ headers, signal: this.#controller.signal })[Symbol.asyncIterator]();
  }

  /** How long nobody asks does not count as silence. */
  async next(): Promise<IteratorResult<Event, unknown>> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        const error = failure("connection_lost", { message: `Nothing was heard for ${silenceMs / 1_000} s.` });
        this.close(error);
        reject(error);
      }, silenceMs);
    });
    try {
      return await Promise.race([this.#events.next(), silence]);
    } finally {
      clearTimeout(timer);
    }
  }

  close(reason?: unknown): void {
    this.#controller.abort(reason);
  }

  /** After the last event that matters: read to its end, the stream leaves a connection that can be used again. */
  finish(): void {
    this.#events.next().catch(() => undefined);
  }
}
