/** A TCP proxy whose connections a test cuts: all there are, or each new one after so many bytes from the server. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export class CuttingProxy {
  readonly url: string;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** How many connections have been made. */
  connections = 0;
  /** From now on a connection is cut when the server has answered this many bytes. */
  cutAfterBytes = Number.POSITIVE_INFINITY;
  /** From now on bytes are passed on in pieces of this size. */
  pieceBytes = Number.POSITIVE_INFINITY;

  private constructor(server: Server, port: number, target: URL) {
    this.#server = server;
    this.url = `http://127.0.0.1:${port}`;
    server.on("connection", (client) => this.#join(client, target));
  }

  static async start(target: string): Promise<CuttingProxy> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
    return new CuttingProxy(server, address.port, new URL(target));
  }

  /** As when a cable is pulled: both ends see a reset. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async stop(): Promise<void> {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #join(client: Socket, target: URL): void {
    this.connections += 1;
    const server = connect(Number(target.port), target.hostname);
    const cut = (): void => {
      client.resetAndDestroy();
      server.resetAndDestroy();
    };
    for (const socket of [client, server]) {
      this.#sockets.add(socket);
      socket.setNoDelay(true);
      // What is cut ends with an error on one side or the other.
      socket.on("error", cut);
      socket.on("close", () => this.#sockets.delete(socket));
    }
    client.pipe(server);
    server.on("end", () => client.end());
    let answered = 0;
    server.on("data", (bytes) => {
      answered += bytes.length;
      if (answered >= this.cutAfterBytes) cut();
      else if (bytes.length <= this.pieceBytes) this.#pass(bytes, server, client);
      else {
        for (let at = 0; at < bytes.length; at += this.pieceBytes) {
          this.#pass(bytes.subarray(at, at + this.pieceBytes), server, client);
        }
      }
    });
  }

  #pass(bytes: Buffer, from: Socket, to: Socket): void {
    if (to.write(bytes)) return;
    from.pause();
    to.once("drain", () => from.resume());
  }
}
