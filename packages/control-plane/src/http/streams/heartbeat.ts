/**
 * Whether the client of a WebSocket is still there. A connection whose other side has vanished without a word looks like one on which
 * nothing happens, so the client is asked from time to time and given up when it shows no sign of life.
 */
import { deadlines } from "@wrenn/contract";
import type { WebSocket } from "ws";

export interface HeartbeatTiming {
  /** Between two questions. */
  readonly pingMs: number;
  /** How long after a question a sign of life may take. */
  readonly pongMs: number;
}

export class Heartbeat {
  readonly #webSocket: WebSocket;
  readonly #sentBytes: () => number;
  #lastSign = performance.now();
  #takenBytes = 0;

  /**
   * Runs until the connection is closed.
   * @param sentBytes how much output the client has been sent so far
   */
  constructor(webSocket: WebSocket, timing: HeartbeatTiming, sentBytes: () => number, onGone: () => void) {
    this.#webSocket = webSocket;
    this.#sentBytes = sentBytes;
    const heard = (): void => {
      this.#lastSign = performance.now();
    };
    webSocket.on("message", heard).on("ping", heard);
    webSocket.on("pong", (payload) => {
      heard();
      this.#takenBytes = Math.max(this.#takenBytes, Number(payload.toString("latin1")) || 0);
    });
    const asking = setInterval(() => {
      this.#ask();
    }, timing.pingMs);
    const checking = setInterval(() => {
      // While it is held back, it cannot be heard; that it has closed the connection is found out by the next pings.
      if (webSocket.isPaused) heard();
      if (performance.now() - this.#lastSign > this.#patienceMs(timing)) onGone();
    }, timing.pongMs / 2);
    webSocket.once("close", () => {
      clearInterval(asking);
      clearInterval(checking);
    });
  }

  /** Resolves when the client has taken all that it was sent, or the connection is closed. */
  async untilTaken(): Promise<void> {
    if (this.#hasTakenAll) return;
    await new Promise<void>((resolve) => {
      this.#webSocket
        .on("pong", () => {
          if (this.#hasTakenAll) resolve();
        })
        .once("close", resolve);
      this.#ask();
    });
  }

  /**
   * A client that does not take its output, because what it writes to is full or a pager shows the first page, does not read our
   * questions either: they lie behind the output. The kernel finds out within a quarter of an hour whether it is there, because output
   * that is not acknowledged breaks the connection; and it is not waited for without end.
   */
  #patienceMs({ pingMs, pongMs }: HeartbeatTiming): number {
    return this.#hasTakenAll ? pingMs + pongMs : deadlines.dataPlaneIdle;
  }

  get #hasTakenAll(): boolean {
    return this.#takenBytes >= this.#sentBytes();
  }

  /** A question carries how much was sent before it; its answer brings that back. */
  #ask(): void {
    this.#webSocket.ping(String(this.#sentBytes()));
  }
}
