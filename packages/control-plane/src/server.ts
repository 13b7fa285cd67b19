/** The one listener: data-plane requests go to the proxy, all others to the API. It bounds what a connection may cost. */
import http from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { deadlines, httpLimits, WrennError } from "@wrenn/contract";
import type { ListenAddress } from "./config.ts";
import type { RequestHandler } from "./http/app.ts";
import { isDataPlane } from "./proxy/authorize.ts";
import type { DataPlane } from "./proxy/data-plane.ts";
import { ignoreUpgrade, isIgnorableUpgrade } from "./proxy/upgrade.ts";
import { requestId } from "./services/request-id.ts";

/** Longer than clients keep idle connections, so that they close them and never write into one that is closing. */
const keepAliveMs = 75_000;
const keepAliveProbeMs = 60_000;
const idleSweepMs = 50;

export class Listener {
  readonly server: Server;
  readonly #dataPlane: DataPlane;
  readonly #api: RequestHandler;
  /** Requests wait for it: the port is taken first, so that a second server fails before it has done anything. */
  readonly #ready: Promise<void>;
  /** The last response begun on each connection. */
  readonly #answering = new WeakMap<Duplex, ServerResponse>();
  #isReady = false;
  #isClosing = false;

  constructor(dataPlane: DataPlane, api: RequestHandler, ready: Promise<void>) {
    this.#dataPlane = dataPlane;
    this.#api = api;
    this.#ready = ready;
    this.server = http.createServer(
      {
        maxHeaderSize: httpLimits.headerBytes,
        headersTimeout: deadlines.requestHead,
        connectionsCheckingInterval: deadlines.requestHead / 3,
        // Uploads into sandboxes may take as long as they take; the API bounds its own bodies.
        requestTimeout: 0,
        keepAliveTimeout: keepAliveMs,
        noDelay: true,
        keepAlive: true,
        // A client that vanished without a word is found out, also behind a connection that was upgraded.
        keepAliveInitialDelay: keepAliveProbeMs,
      },
      (request, response) => {
        this.#answering.set(request.socket, response);
        this.#whenReady(() => {
          this.#route(request, response);
        });
      },
    );
    this.server.maxConnections = httpLimits.connections;
    this.server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      // Node has let go of the connection; nobody else listens for its errors until there is a route.
      socket.on("error", () => socket.destroy());
      this.#whenReady(() => {
        if (!socket.destroyed) this.#routeUpgrade(request, socket, head);
      });
    });
    this.server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
      // In the middle of an answer, another one would be taken for its body.
      const response = this.#answering.get(socket);
      if (response?.headersSent === true && !response.writableEnded) socket.destroy();
      else answerClientError(error, socket);
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
    if (isDataPlane(request) && !isIgnorableUpgrade(request) && !this.#isClosing) {
      this.#dataPlane.handleUpgrade(request, socket, head);
    } else {
      ignoreUpgrade(this.server, request, socket, head);
    }
  }
}

function refuseWhileClosing(request: IncomingMessage, response: ServerResponse): void {
  const error = new WrennError("shutting_down");
  const id = requestId(request);
  response.writeHead(error.status, {
    "Content-Type": "application/json; charset=utf-8",
    "X-Request-Id": id,
    "Wrenn-Error": error.code,
    Connection: "close",
  });
  response.end(JSON.stringify(error.toBody(id)));
}

/** What Node's parser refuses never becomes a request, so it is answered by hand. */
function answerClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const wrennError = clientErrorOf(error);
  const body = JSON.stringify(wrennError.toBody());
  socket.end(
    `HTTP/1.1 ${wrennError.status} ${http.STATUS_CODES[wrennError.status] ?? ""}\r\nConnection: close\r\n` +
      `Content-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

function clientErrorOf(error: NodeJS.ErrnoException): WrennError {
  if (error.code === "HPE_HEADER_OVERFLOW") return new WrennError("headers_too_large");
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") return new WrennError("request_timeout");
  return new WrennError("invalid_request", { message: "That is not an HTTP/1.1 request." });
}

function portTaken({ host, port }: ListenAddress, cause: Error): WrennError {
  return new WrennError("port_taken", {
    message: `Another program listens on ${host}:${port}.`,
    details: { host, port },
    cause,
  });
}
