/** A tunnel that is opened before anybody asks for it, and kept for a moment for who does. */
import type { Socket } from "node:net";
import { intervals } from "@wrenn/contract";
import type { OnTunnel } from "./tunnel.ts";

const endings = ["readable", "error", "close"] as const;

export class TunnelAhead {
  readonly #unused: NodeJS.Timeout;
  #socket: Socket | null = null;
  /** How it ended: it failed, its other side has closed it, or it is wanted no more. */
  #over = false;
  /** Who waits for it. */
  #taker: { readonly onTunnel: OnTunnel; readonly otherwise: () => void } | null = null;

  constructor(open: (onTunnel: OnTunnel) => void) {
    this.#unused = setTimeout(() => {
      this.drop();
    }, intervals.tunnelAhead);
    this.#unused.unref();
    open((_error, socket) => {
      if (socket === null) this.#end();
      else this.#opened(socket);
    });
  }

  /**
   * Hands the tunnel over as soon as it is there, never before this returns. `otherwise` is called where it will not be; why, is for a new
   * attempt to find out.
   */
  take(onTunnel: OnTunnel, otherwise: () => void): void {
    clearTimeout(this.#unused);
    this.#taker = { onTunnel, otherwise };
    const socket = this.#socket;
    if (this.#over) otherwise();
    else if (socket !== null) {
      process.nextTick(() => {
        this.#handOver(socket, onTunnel);
      });
    }
  }

  /** Closes it, unless it has been handed over or somebody waits for it. */
  drop(): void {
    if (this.#taker !== null) return;
    clearTimeout(this.#unused);
    this.#end();
  }

  #opened(socket: Socket): void {
    if (this.#over) socket.destroy();
    else if (this.#taker !== null) this.#handOver(socket, this.#taker.onTunnel);
    else {
      this.#socket = socket;
      // A guest agent that is asked nothing says nothing: there is something to read only where the other side has closed it.
      for (const event of endings) socket.on(event, this.#onEnd);
    }
  }

  #handOver(socket: Socket, onTunnel: OnTunnel): void {
    for (const event of endings) socket.off(event, this.#onEnd);
    onTunnel(null, socket);
  }

  readonly #onEnd = (): void => {
    this.#end();
  };

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#socket?.destroy();
    this.#taker?.otherwise();
  }
}
