/** A connection for tests of what no HTTP client would send. */
import { once } from "node:events";
import net from "node:net";
import { errorBodySchema } from "@wrenn/contract";
import { eventually } from "./test-server.ts";

export interface RawReply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

export class RawConnection {
  readonly socket: net.Socket;
  readonly #chunks: Buffer[] = [];
  receivedBytes = 0;

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.on("data", (chunk) => {
      this.#chunks.push(chunk);
      this.receivedBytes += chunk.length;
    });
    // A server that closes with bytes still to be read resets the connection.
    socket.on("error", () => socket.destroy());
  }

  static async open(url: string): Promise<RawConnection> {
    const { hostname, port } = new URL(url);
    const socket = net.connect(Number(port), hostname);
    await once(socket, "connect");
    return new RawConnection(socket);
  }

  send(bytes: string | Buffer): this {
    this.socket.write(bytes);
    return this;
  }

  close(): void {
    this.socket.destroy();
  }

  get text(): string {
    return this.#received().toString("latin1");
  }

  /** Every whole answer that has come. */
  get replies(): RawReply[] {
    const replies: RawReply[] = [];
    let rest = this.#received();
    for (;;) {
      const end = rest.indexOf("\r\n\r\n");
      if (end === -1) return replies;
      const [statusLine = "", ...lines] = rest.toString("latin1", 0, end).split("\r\n");
      const headers = Object.fromEntries(
        lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
      );
      const length = Number(headers["content-length"] ?? 0);
      const body = rest.subarray(end + 4, end + 4 + length);
      if (body.length < length) return replies;
      replies.push({ status: Number(statusLine.split(" ")[1]), headers, body: body.toString("utf8") });
      rest = rest.subarray(end + 4 + length);
    }
  }

  #received(): Buffer {
    const all = Buffer.concat(this.#chunks);
    this.#chunks.splice(0, this.#chunks.length, all);
    return all;
  }

  /** All answers, once the server has closed the connection. */
  async untilClosed(): Promise<RawReply[]> {
    await eventually(() => {
      if (!this.socket.closed && !this.socket.readableEnded)
        throw new Error(`still open after ${this.receivedBytes} bytes`);
    });
    return this.replies;
  }

  /** The answers, once there are so many. */
  async untilReplies(count: number): Promise<RawReply[]> {
    return eventually(() => {
      if (this.replies.length < count) throw new Error(`${this.replies.length} answers: ${this.text}`);
      return this.replies;
    });
  }
}

/** Status and code of an error in the API's shape, whose request id is in a header too. */
export function errorOf({ status, headers, body }: RawReply): [number, string] {
  const { error } = errorBodySchema.parse(JSON.parse(body));
  if (error.request_id === undefined || error.request_id !== headers["x-request-id"]) {
    throw new Error(`the answer's request id is not in its header: ${JSON.stringify({ headers, body })}`);
  }
  return [status, error.code];
}
