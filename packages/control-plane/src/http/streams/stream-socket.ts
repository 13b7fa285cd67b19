/** A WebSocket of the API: JSON in text messages, bytes of a channel in binary ones, an error as the last word when one is due. */
import type { Socket } from "node:net";
import { streamChannels, streamLimits, WrennError } from "@wrenn/contract";
import type { ProcessEnd, ServerMessage } from "@wrenn/contract";
import { WebSocket } from "ws";
import type { OutputChannel } from "../../services/followed-process.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { HeartbeatTiming } from "./heartbeat.ts";
import { Inbox } from "./inbox.ts";
import type { ClientMessage } from "./inbox.ts";

/** Close codes (RFC 6455, 7.4.1). */
const closeCodes = { done: 1000, goingAway: 1001, refused: 1008, tooBig: 1009, failed: 1011 } as const;

/** The client closed the connection, vanished, or sent what is no WebSocket message. */
export class ClientLeft extends Error {}

/**
 * Tells before it closes, also by itself, which it does when its client has said goodbye or sent what cannot be read: afterwards
 * nothing can be said any more, and the connection may take long to end behind what a slow client has not taken.
 */
export class TellingWebSocket extends WebSocket {
  beforeClose: (code: number | undefined) => void = () => undefined;

  override close(code?: number, data?: string | Buffer): void {
    this.beforeClose(code);
    super.close(code, data);
  }
}

export class StreamSocket {
  readonly requestId: string;
  /** Aborted when the conversation is over: with `ClientLeft`, or with the error that the client was told. */
  readonly over: AbortSignal;
  readonly #webSocket: TellingWebSocket;
  readonly #connection: Socket;
  readonly #inbox: Inbox;
  readonly #heartbeat: Heartbeat;
  readonly #over = new AbortController();
  readonly #closed: Promise<void>;
  /** Of output. */
  #sentBytes = 0;
  #isGathering = false;
  #ending: Promise<void> | undefined;

  constructor(webSocket: TellingWebSocket, connection: Socket, requestId: string, timing: HeartbeatTiming) {
    this.#webSocket = webSocket;
    this.#connection = connection;
    this.requestId = requestId;
    this.over = this.#over.signal;
    this.#inbox = new Inbox(webSocket);
    // What is wrong with a connection ends it, and its end is what counts.
    webSocket.on("error", () => undefined);
    webSocket.beforeClose = (code) => {
      if (code === closeCodes.tooBig) void this.fail(new WrennError("message_too_large"));
      else this.#over.abort(new ClientLeft("the client has left"));
    };
    this.#closed = new Promise((resolve) => {
      webSocket.once("close", () => {
        this.#over.abort(new ClientLeft("the client has left"));
        resolve();
      });
    });
    const sentBytes = (): number => this.#sentBytes;
    this.#heartbeat = new Heartbeat(webSocket, timing, sentBytes, () => {
      webSocket.terminate();
    });
  }

  /** The client's next message; null when it has left. One caller at a time. */
  async next(): Promise<ClientMessage | null> {
    return this.#inbox.next();
  }

  /** The message has been dealt with, which lets the client send on. */
  release(message: ClientMessage): void {
    this.#inbox.release(message);
  }

  say(message: ServerMessage): void {
    this.#webSocket.send(JSON.stringify(message));
  }

  /** Resolves when more may be sent: at once, or when a client that is slow has taken what was sent before. */
  async sendOutput(channel: OutputChannel, bytes: Uint8Array): Promise<void> {
    const message = Buffer.allocUnsafe(bytes.length + 1);
    message[0] = streamChannels[channel];
    message.set(bytes, 1);
    this.#sentBytes += message.length;
    this.#gather();
    await new Promise<void>((resolve) => {
      // Also called when the connection has ended, which others see to.
      this.#webSocket.send(message, () => {
        resolve();
      });
      if (this.#webSocket.bufferedAmount < streamLimits.unsentBytes) resolve();
    });
  }

  /** The last message of a process that has ended. Resolves when the connection is closed. */
  async finish(end: ProcessEnd): Promise<void> {
    await this.#end({ type: "exit", ...end }, closeCodes.done);
  }

  /** The last message of a conversation that failed. Resolves when the connection is closed. */
  async fail(error: WrennError): Promise<void> {
    this.#over.abort(error);
    await this.#end({ type: "error", ...error.toBody(this.requestId) }, closeCodeOf(error));
  }

  /** Ends the connection without another word. */
  terminate(): void {
    this.#webSocket.terminate();
  }

  /** Has what is sent in one turn of the event loop go out in one piece: a process prints much in many small ones. */
  #gather(): void {
    if (this.#isGathering) return;
    this.#isGathering = true;
    this.#connection.cork();
    setImmediate(() => {
      this.#isGathering = false;
      this.#connection.uncork();
    });
  }

  /** Of several last words the first counts. */
  async #end(message: ServerMessage, code: number): Promise<void> {
    this.#ending ??= this.#close(message, code);
    await this.#ending;
  }

  async #close(message: ServerMessage, code: number): Promise<void> {
    this.say(message);
    this.#inbox.discard();
    // A connection that is closed is cut after a while, so a client that takes its time first gets it.
    await this.#heartbeat.untilTaken();
    this.#webSocket.close(code);
    await this.#closed;
  }
}

function closeCodeOf(error: WrennError): number {
  if (error.code === "shutting_down") return closeCodes.goingAway;
  if (error.code === "message_too_large") return closeCodes.tooBig;
  return error.status >= 500 ? closeCodes.failed : closeCodes.refused;
}
