/**
 * What runs "inside" a sandbox of the simulated host agent: a real HTTP and WebSocket server that records what it gets and
 * misbehaves on request.
 */
import { createHash } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { WebSocketServer } from "ws";

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: NodeJS.Dict<string | string[]>;
  /** How many requests its connection had carried before. */
  readonly connectionAge: number;
}

export class SimulatedGuest {
  readonly seen: SeenRequest[] = [];
  /** Paths of streaming requests whose client has gone before they were complete. */
  readonly abandoned: string[] = [];
  /** Bytes that `/download` has handed to its socket so far, in all. */
  sentBytes = 0;
  /** Bytes that `/upload` has read so far, in all. */
  receivedBytes = 0;
  connections = 0;
  /** While set, `/upload` reads nothing. */
  holdUploads: Promise<void> | undefined;
  readonly #ages = new WeakMap<object, number>();
  readonly #server: http.Server;
  readonly #sockets = new WebSocketServer({ noServer: true });

  private constructor() {
    this.#server = http.createServer({ keepAliveTimeout: 600_000, requestTimeout: 0 }, (request, response) => {
      void this.#serve(request, response);
    });
    this.#server.on("connection", () => {
      this.connections += 1;
    });
    this.#server.on("upgrade", (request, socket, head) => {
      this.#note(request);
      if (request.url !== "/websocket") {
        socket.end("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 5\r\n\r\nno ws");
        return;
      }
      this.#sockets.handleUpgrade(request, socket, head, (webSocket) => {
        webSocket.on("message", (data, binary) => {
          webSocket.send(data, { binary });
        });
        webSocket.on("close", () => this.abandoned.push("/websocket"));
      });
    });
  }

  static async start(): Promise<SimulatedGuest> {
    const guest = new SimulatedGuest();
    guest.#server.listen(0, "127.0.0.1");
    await once(guest.#server, "listening");
    return guest;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the guest does not listen");
    return address.port;
  }

  stop(): void {
    for (const client of this.#sockets.clients) client.terminate();
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #note(request: IncomingMessage): void {
    const age = this.#ages.get(request.socket) ?? 0;
    this.#ages.set(request.socket, age + 1);
    const { method = "", url = "", headers } = request;
    this.seen.push({ method, url, headers, connectionAge: age });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.#note(request);
    const url = new URL(request.url ?? "/", "http://guest");
    response.on("close", () => {
      if (!response.writableFinished) this.abandoned.push(url.pathname);
    });
    switch (url.pathname) {
      case "/upload":
        return this.#upload(request, response);
      case "/download":
        return this.#download(Number(url.searchParams.get("bytes")), response);
      case "/stream":
        // A head at once, a line, and then nothing for as long as anyone listens.
        response.writeHead(200, {
          "Content-Type": "text/plain",
          "Wrenn-Error": "forged",
          Connection: "X-Hop",
          "X-Hop": "1",
        });
        response.flushHeaders();
        if (url.searchParams.has("line")) response.write("first\n");
        return;
      case "/truncate":
        response.writeHead(200, { "Content-Length": "1000" });
        response.write("part", () => request.socket.destroy());
        return;
      case "/reset":
        request.socket.destroy();
        return;
      case "/stale":
        // Says that it keeps the connection, and closes it as soon as somebody uses it again.
        if (this.seen.at(-1)?.connectionAge !== 0) {
          request.socket.destroy();
          return;
        }
        break;
      case "/refuse":
        response.writeHead(413, { "Content-Length": "8" }).end("too much");
        return;
      case "/cross-origin":
        response.writeHead(200, {
          "Access-Control-Allow-Origin": "https://elsewhere.example",
          "Access-Control-Allow-Credentials": "true",
          Vary: "Accept",
          "Set-Cookie": ["a=1", "b=2"],
        });
        response.end("{}");
        return;
      default:
    }
    const body = JSON.stringify({ path: url.pathname });
    response.writeHead(200, "Fine", { "Content-Type": "application/json", "X-Guest": ["one", "two"] });
    response.end(request.method === "HEAD" ? undefined : body);
  }

  async #upload(request: IncomingMessage, response: ServerResponse): Promise<void> {
    await this.holdUploads;
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      for await (const chunk of request as AsyncIterable<Buffer>) {
        hash.update(chunk);
        bytes += chunk.length;
        this.receivedBytes += chunk.length;
      }
    } catch {
      this.abandoned.push("/upload");
      return;
    }
    response.end(JSON.stringify({ bytes, sha256: hash.digest("hex") }));
  }

  async #download(bytes: number, response: ServerResponse): Promise<void> {
    const chunk = Buffer.alloc(65_536, "w");
    response.writeHead(200, { "Content-Length": bytes });
    for (let left = bytes; left > 0; left -= chunk.length) {
      if (response.destroyed) return;
      const part = left < chunk.length ? chunk.subarray(0, left) : chunk;
      this.sentBytes += part.length;
      if (!response.write(part)) await drainOrClose(response);
    }
    response.end();
  }
}

async function drainOrClose(response: ServerResponse): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = (): void => {
      response.off("drain", done).off("close", done);
      resolve();
    };
    response.on("drain", done).on("close", done);
  });
}
