/** Stands between a client and a TCP server, and can be cut: as a network between two machines can. */
import { once } from "node:events";
import net from "node:net";

export class CuttableLink {
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #isCut = false;

  private constructor(host: string, port: number) {
    this.#server = net.createServer((client) => {
      if (this.#isCut) {
        client.destroy();
        return;
      }
      const server = net.connect(port, host);
      for (const [from, to] of [
        [client, server],
        [server, client],
      ] as const) {
        this.#sockets.add(from);
        from.on("error", () => to.destroy());
        from.on("close", () => {
          this.#sockets.delete(from);
          to.destroy();
        });
        from.pipe(to);
      }
    });
  }

  /** A link to where this URL leads. */
  static async to(url: string): Promise<CuttableLink> {
    const { hostname, port } = new URL(url);
    const link = new CuttableLink(hostname, Number(port));
    link.#server.listen(0, "127.0.0.1");
    await once(link.#server, "listening");
    return link;
  }

  /** The same URL, through this link. */
  through(url: string): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the link has been closed");
    return Object.assign(new URL(url), { hostname: "127.0.0.1", port: String(address.port) }).href;
  }

  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
