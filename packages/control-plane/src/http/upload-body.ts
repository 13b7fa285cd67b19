/** The body of an upload, as a stream of its own: what takes it may give it up without ending the connection it comes on. */
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { WrennError } from "@wrenn/contract";

/** About what a socket gives at once, a few times over. */
const bufferedBytes = 262_144;

export class UploadBody extends Readable {
  readonly #request: IncomingMessage;
  readonly #idleMs: number;
  #idle: NodeJS.Timeout | undefined;

  /** Fails when the sender leaves, or sends nothing for so long while it is waited for. */
  constructor(request: IncomingMessage, idleMs: number) {
    super({ highWaterMark: bufferedBytes });
    this.#request = request;
    this.#idleMs = idleMs;
    // It may fail before anybody takes it, and is asked about that then.
    this.on("error", () => undefined);
    request.on("data", this.#onData).on("end", this.#onEnd).on("close", this.#onClose).pause();
    if (request.destroyed) this.#onClose();
  }

  override _read(): void {
    this.#idle ??= setTimeout(() => {
      this.destroy(new WrennError("request_timeout", { message: "No more of the upload arrived in time." }));
    }, this.#idleMs);
    this.#request.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#stopWaiting();
    // What is left is for `discardRest`.
    this.#request.off("data", this.#onData).off("end", this.#onEnd).off("close", this.#onClose).pause();
    callback(error);
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#stopWaiting();
    if (!this.push(chunk)) this.#request.pause();
  };

  readonly #onEnd = (): void => {
    this.#stopWaiting();
    this.push(null);
  };

  readonly #onClose = (): void => {
    if (this.#request.complete) return;
    this.destroy(new WrennError("invalid_request", { message: "The connection ended before the whole body arrived." }));
  };

  #stopWaiting(): void {
    clearTimeout(this.#idle);
    this.#idle = undefined;
  }
}
