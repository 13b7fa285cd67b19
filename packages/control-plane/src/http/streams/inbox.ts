/** What a client has sent and nobody is done with yet, in order. A client that sends faster than that is held back. */
import { streamLimits } from "@wrenn/contract";
import type { WebSocket } from "ws";

export interface ClientMessage {
  readonly isBinary: boolean;
  readonly bytes: Buffer;
}

/** More than one message of the largest size is never held, except for what had arrived together with it. */
const heldBackAtBytes = streamLimits.messageBytes;

export class Inbox {
  readonly #webSocket: WebSocket;
  readonly #waiting: ClientMessage[] = [];
  /** Of all messages that are not done with. */
  #heldBytes = 0;
  #isOver = false;
  #wake: (() => void) | undefined;

  constructor(webSocket: WebSocket) {
    this.#webSocket = webSocket;
    // The server's sockets give a message as one Buffer.
    webSocket.on("message", (bytes: Buffer, isBinary: boolean) => {
      if (this.#isOver) return;
      this.#waiting.push({ isBinary, bytes });
      this.#heldBytes += bytes.length;
      if (this.#heldBytes >= heldBackAtBytes) webSocket.pause();
      this.#wake?.();
    });
    webSocket.once("close", () => {
      this.discard();
    });
  }

  /** The next message; null when there will be none. One caller at a time. */
  async next(): Promise<ClientMessage | null> {
    while (this.#waiting.length === 0 && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#waiting.shift() ?? null;
  }

  /** The message needs no memory any more: another may come in its place. */
  release({ bytes }: ClientMessage): void {
    if (this.#isOver) return;
    this.#heldBytes -= bytes.length;
    if (this.#webSocket.isPaused && this.#heldBytes < heldBackAtBytes) this.#webSocket.resume();
  }

  /** Nothing is taken any more. The client may send on, so that its goodbye is heard behind what it has sent before. */
  discard(): void {
    this.#isOver = true;
    this.#waiting.length = 0;
    this.#webSocket.resume();
    this.#wake?.();
  }
}
