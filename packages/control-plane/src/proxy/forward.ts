/** One request on its way through a tunnel: streamed both ways, never held back, and ended on one side when it ends on the other. */
import type http from "node:http";
import { Readable } from "node:stream";
import type { Duplex } from "node:stream";
import { deadlines, WrennError } from "@wrenn/contract";
import { errors as undiciErrors } from "undici";
import type { Dispatcher } from "undici";
import type { PooledTunnels } from "../hosts/tunnel-pools.ts";
import { addHeadersForPage, isForPage } from "../cross-origin.ts";
import { headersFromGuest } from "./headers.ts";

export interface Forwarding {
  readonly request: http.IncomingMessage;
  readonly response: http.ServerResponse;
  readonly headers: string[];
  /** Asked again for a second attempt, because the first pool may have been closed meanwhile. */
  readonly tunnels: () => PooledTunnels;
  /** The protocol that the caller asks to go on in, and what to do once the guest agrees. */
  readonly upgrade?: {
    readonly protocol: string;
    readonly accept: (guest: Duplex, headers: readonly (Buffer | string)[]) => void;
  };
  /** Called when the guest could not be asked or broke off before it answered. Never after an answer has begun. */
  readonly onFailure: (error: WrennError) => void;
}

/**
 * Bodies up to this size are sent in one piece with the head: most calls of the guest agent are. A stream for each costs more than
 * all the rest of forwarding, and a head that comes alone wakes an emulated guest twice.
 */
const wholeBodyBytes = 65_536;

/** Sends the request. Everything that happens afterwards happens through the response or `onFailure`. */
export function forward(forwarding: Forwarding): void {
  const { request, upgrade } = forwarding;
  if (!hasBody(request) || upgrade !== undefined) dispatch(forwarding, null);
  else if (isSmall(request)) {
    readWhole(request, (body) => {
      if (!forwarding.response.destroyed) dispatch(forwarding, body);
    });
  } else dispatch(forwarding, bodyOf(request));
}

function dispatch(forwarding: Forwarding, body: Readable | Buffer | null, attempt = 1): void {
  const { request, headers, tunnels, upgrade } = forwarding;
  const pooled = tunnels();
  const options: Dispatcher.DispatchOptions = {
    path: request.url ?? "/",
    method: request.method ?? "GET",
    headers,
    body,
    ...(upgrade === undefined ? {} : { upgrade: upgrade.protocol }),
  };
  pooled.inFlight += 1;
  pooled.pool.dispatch(options, new ForwardHandler(forwarding, pooled, attempt));
}

class ForwardHandler implements Dispatcher.DispatchHandler {
  readonly #forwarding: Forwarding;
  readonly #pooled: PooledTunnels;
  readonly #attempt: number;
  readonly #onClientGone: () => void;
  #controller: Dispatcher.DispatchController | undefined;
  #resume: (() => void) | undefined;
  #ended = false;

  constructor(forwarding: Forwarding, pooled: PooledTunnels, attempt: number) {
    this.#forwarding = forwarding;
    this.#pooled = pooled;
    this.#attempt = attempt;
    this.#onClientGone = () => {
      this.#controller?.abort(new Error("the client closed the connection"));
    };
    forwarding.response.once("close", this.#onClientGone);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#forwarding.response.destroyed) this.#onClientGone();
  }

  onRequestUpgrade(controller: Dispatcher.DispatchController, _status: number, _headers: unknown, guest: Duplex): void {
    this.#end();
    this.#forwarding.upgrade?.accept(guest, rawHeaders(controller));
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    _headers: unknown,
    message?: string,
  ): void {
    // Informational answers concern the hop they were sent on.
    if (status < 200) return;
    const { response } = this.#forwarding;
    const headers = headersFromGuest(rawHeaders(controller));
    if (isForPage(response)) {
      addHeadersForPage(response, headers);
      response.writeHead(status, message);
    } else response.writeHead(status, message, headers);
    // With the first bytes where those are already here, but not later than now: the head of a stream is news itself.
    process.nextTick(() => {
      if (!response.writableEnded && !response.destroyed) response.flushHeaders();
    });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const { response } = this.#forwarding;
    if (response.write(chunk)) return;
    controller.pause();
    if (this.#resume !== undefined) return;
    this.#resume = () => {
      this.#resume = undefined;
      controller.resume();
    };
    response.once("drain", this.#resume);
  }

  onResponseEnd(): void {
    this.#end();
    const { request, response } = this.#forwarding;
    response.end(() => {
      // Where the guest answered before it had the whole body, the rest is in the way of the connection's next request.
      if (!request.complete) request.resume();
    });
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#end();
    const { request, response, onFailure } = this.#forwarding;
    if (response.destroyed) return;
    if (response.headersSent) {
      // The caller must see that what it got is not all there was.
      response.destroy();
      return;
    }
    const repeatable = (request.method === "GET" || request.method === "HEAD") && !hasBody(request);
    if (this.#attempt === 1 && repeatable && brokeOff(error)) {
      dispatch(this.#forwarding, null, this.#attempt + 1);
      return;
    }
    onFailure(asForwardingError(error));
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#pooled.inFlight -= 1;
    this.#pooled.lastUsed = performance.now();
    this.#forwarding.response.off("close", this.#onClientGone);
    if (this.#resume !== undefined) this.#forwarding.response.off("drain", this.#resume);
  }
}

/** HTTP/1.1 marks a message that has a body by one of these two. */
function hasBody({ headers }: http.IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

/** Whether the whole body has been announced and is small. */
function isSmall({ headers }: http.IncomingMessage): boolean {
  return headers["transfer-encoding"] === undefined && Number(headers["content-length"]) <= wholeBodyBytes;
}

/** A sender that goes away before it has sent everything, or takes for ever, is not forwarded at all. */
function readWhole(request: http.IncomingMessage, then: (body: Buffer) => void): void {
  const chunks: Buffer[] = [];
  const late = setTimeout(() => request.destroy(), deadlines.dataPlaneIdle);
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.once("close", () => {
    clearTimeout(late);
  });
  request.once("end", () => {
    const [first] = chunks;
    then(chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks));
  });
}

/** undici destroys the stream it sends when the guest answers early; the caller's connection must outlive that. */
function bodyOf(request: http.IncomingMessage): Readable {
  return Readable.from(request.iterator({ destroyOnReturn: false }), { objectMode: false });
}

function rawHeaders({ rawHeaders }: Dispatcher.DispatchController): (Buffer | string)[] {
  return Array.isArray(rawHeaders) ? rawHeaders : [];
}

/** Whether the connection ended before an answer, as a pooled one does that the other side has just closed. */
function brokeOff(error: Error): boolean {
  return (
    error instanceof undiciErrors.SocketError ||
    error instanceof undiciErrors.ClientDestroyedError ||
    error instanceof undiciErrors.ClientClosedError ||
    ("code" in error && (error.code === "ECONNRESET" || error.code === "EPIPE"))
  );
}

function asForwardingError(error: Error): WrennError {
  if (error instanceof WrennError) return error;
  if (error instanceof undiciErrors.InvalidArgumentError || error instanceof undiciErrors.NotSupportedError) {
    return new WrennError("invalid_request", { message: "The request cannot be forwarded.", cause: error });
  }
  const message =
    error instanceof undiciErrors.HTTPParserError
      ? "What listens on that port of the sandbox does not speak HTTP."
      : "The connection to the sandbox broke before it answered.";
  return new WrennError("connection_lost", { message, cause: error });
}
