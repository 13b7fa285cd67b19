/**
 * The one listener: data-plane requests go to the proxy, the API's WebSockets to its streams, all others to the API. It bounds
 * what a connection may cost.
 */
import http from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { httpLimits, WrennError } from "@wrenn/contract";
import type { Logger } from "pino";
import type { ListenAddress } from "./config.ts";
import type { RequestHandler } from "./http/app.ts";
import { answerOnSocket, clientErrorOf } from "./http/client-errors.ts";
import { answerCrossOrigin } from "./cross-origin.ts";
import { isHealthProbe } from "./http/health.ts";
import { answerError } from "./raw-errors.ts";
import type { Streams } from "./http/streams/streams.ts";
import { isDataPlane } from "./proxy/authorize.ts";
import type { DataPlane } from "./proxy/data-plane.ts";
import { ignoreUpgrade, isIgnorableUpgrade } from "./proxy/upgrade.ts";
import { requestId } from "./services/request-id.ts";

/** Longer than clients keep idle connections, so that they close them and never write into one that is closing. */
const keepAliveMs = 75_000;
const keepAliveProbeMs = 60_000;
const idleSweepMs = 50;

export interface ListenerOptions {
  readonly dataPlane: DataPlane;
  readonly streams: Streams;
  readonly api: RequestHandler;
  /** Requests wait for it: the port is taken first, so that a second server fails before it has done anything. */
  readonly ready: Promise<void>;
  readonly log: Logger;
  /** Origins of pages that may use the server, beside its own. */
  readonly allowedOrigins: readonly string[];
  /** How long the head of a request may take. */
  readonly requestHeadMs: number;
  /** How many connections there may be at once. What comes beyond is closed at once. */
  readonly maxConnections: number;
  /** Told of each connection beyond. */
  readonly onConnectionRefused: () => void;
}

export class Listener {
  readonly server: Server;
  readonly #dataPlane: DataPlane;
  readonly #streams: Streams;
  readonly #api: RequestHandler;
  readonly #log: Logger;
  readonly #ready: Promise<void>;
  /** The last response begun on each connection. */
  readonly #answering = new WeakMap<Duplex, ServerResponse>();
  /** Connections on which something came that is no request: whatever else comes on them is ignored. */
  readonly #broken = new WeakSet<Duplex>();
  #isReady = false;
  #isClosing = false;

  constructor(options: ListenerOptions) {
    this.#dataPlane = options.dataPlane;
    this.#streams = options.streams;
    this.#api = options.api;
    this.#log = options.log;
    this.#ready = options.ready;
    const answer = (request: IncomingMessage, response: ServerResponse): void => {
      this.#answering.set(request.socket, response);
      if (answerCrossOrigin(request, response, options.allowedOrigins)) return;
      if (request.headers.host === undefined && request.httpVersion === "1.1") {
        answerError(
          response,
          new WrennError("invalid_request", { message: "The request has no Host header." }),
          requestId(request),
        );
      } else if (isHealthProbe(request.url ?? "") && !isDataPlane(request)) {
        this.#api(request, response);
      } else {
        this.#whenReady(() => {
          this.#route(request, response);
        });
      }
    };
    this.server = http.createServer(
      {
        maxHeaderSize: httpLimits.headerBytes,
        headersTimeout: options.requestHeadMs,
        connectionsCheckingInterval: options.requestHeadMs / 3,
        // Uploads into sandboxes may take as long as they take; the API bounds its own bodies.
        requestTimeout: 0,
        keepAliveTimeout: keepAliveMs,
        noDelay: true,
        keepAlive: true,
        // A client that vanished without a word is found out, also behind a connection that was upgraded.
        keepAliveInitialDelay: keepAliveProbeMs,
        // Node's own refusal has no body; ours says what is missing.
        requireHostHeader: false,
      },
      answer,
    );
    this.server.maxConnections = options.maxConnections;
    this.server.on("drop", options.onConnectionRefused);
    // An expectation that nobody knows may be ignored (RFC 9110, section 10.1.1).
    this.server.on("checkExpectation", answer);
    this.server.on("connect", (_request: IncomingMessage, socket: Duplex) => {
      // As below: nobody else listens for its errors.
      socket.on("error", () => socket.destroy());
      this.#refuse(
        socket,
        new WrennError("method_not_allowed", { message: "This server is no proxy: it does not take CONNECT." }),
      );
    });
    this.server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      // Node has let go of the connection; nobody else listens for its errors until there is a route.
      socket.on("error", () => socket.destroy());
      this.#whenReady(() => {
        if (!socket.destroyed) this.#routeUpgrade(request, socket, head);
      });
    });
    this.server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
      this.#onClientError(error, socket);
    });
  }

  /** @throws WrennError `port_taken` */
  async listen({ host, port }: ListenAddress): Promise<AddressInfo> {
    await new Promise<void>((resolve, reject) => {
      const onError = (error: NodeJS.ErrnoException): void => {
        reject(error.code === "EADDRINUSE" ? portTaken({ host, port }, error) : error);
      };
      this.server.once("error", onError).listen({ host, port }, () => {
        this.server.off("error", onError);
        resolve();
      });
    });
    const address = this.server.address();
    if (address === null || typeof address === "string") throw new WrennError("internal");
    return address;
  }

  /** Takes no new requests, gives those under way a moment, then ends them. */
  async close(drainMs: number): Promise<void> {
    this.#isClosing = true;
    const closed = new Promise<void>((resolve) => {
      this.server.close(() => {
        resolve();
      });
    });
    const drained = setTimeout(() => {
      this.#dataPlane.endUpgraded();
      this.#streams.close();
      this.server.closeAllConnections();
    }, drainMs);
    // Those that become idle from now on; close() itself has ended those that were.
    const sweeper = setInterval(() => {
      this.server.closeIdleConnections();
    }, idleSweepMs);
    await closed;
    clearInterval(sweeper);
    clearTimeout(drained);
  }

  /** Answers after what is being answered, so that no answer is taken for that of another request, or for the rest of one. */
  #onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const refusal = clientErrorOf(error);
    if (refusal === null || !socket.writable) {
      socket.destroy();
      return;
    }
    if (this.#broken.has(socket)) return;
    this.#broken.add(socket);
    const response = this.#answering.get(socket);
    const isAnswering = response !== undefined && !response.writableFinished;
    if (!isAnswering) this.#refuse(socket, refusal);
    else if (response.req.complete) response.once("close", () => this.#refuse(socket, refusal));
    // It is the body of the request being answered that broke.
    else if (response.headersSent) socket.destroy();
    else this.#refuse(socket, refusal);
  }

  #refuse(socket: Duplex, error: WrennError): void {
    if (!socket.writable) {
      socket.destroy();
      return;
    }
    const reqId = answerOnSocket(socket, error);
    this.#log.debug({ reqId, code: error.code, err: error.cause }, "connection refused");
  }

  #whenReady(work: () => void): void {
    if (this.#isReady) {
      work();
      return;
    }
    void this.#workWhenReady(work);
  }

  async #workWhenReady(work: () => void): Promise<void> {
    try {
      await this.#ready;
    } catch {
      // Starting failed: the process ends, and its connections with it.
      return;
    }
    this.#isReady = true;
    work();
  }

  #route(request: IncomingMessage, response: ServerResponse): void {
    if (this.#isClosing) refuseWhileClosing(request, response);
    else if (isDataPlane(request)) this.#dataPlane.handle(request, response);
    else this.#api(request, response);
  }

  #routeUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const isForUs = !this.#isClosing && !isIgnorableUpgrade(request);
    if (isForUs && isDataPlane(request)) this.#dataPlane.handleUpgrade(request, socket, head);
    else if (!isForUs || !this.#streams.handleUpgrade(request, socket, head)) {
      ignoreUpgrade(this.server, request, socket, head);
    }
  }
}

function refuseWhileClosing(request: IncomingMessage, response: ServerResponse): void {
  response.setHeader("Connection", "close");
  answerError(response, new WrennError("shutting_down"), requestId(request));
}

function portTaken({ host, port }: ListenAddress, cause: Error): WrennError {
  return new WrennError("port_taken", {
    message: `Another program listens on ${host}:${port}.`,
    details: { host, port },
    cause,
  });
}
