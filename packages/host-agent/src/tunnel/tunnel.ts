/**
 * The data plane's way into a sandbox: `CONNECT <sandbox uuid>:<port>` is answered 200, and from then on bytes go both ways until both
 * sides have ended, or the sandbox has.
 */
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asWrennError, deadlines, parseUuid, type SandboxId, WrennError } from "@wrenn/contract";
import { withSignals } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { Reach, Sandboxes } from "../sandboxes/sandboxes.ts";
import { dialGuest } from "./dial.ts";

const highestPort = 65_535;
const noBytes = Buffer.alloc(0);

export class Tunnels {
  readonly #sandboxes: Pick<Sandboxes, "reach">;
  readonly #log: BaseLogger;
  #open = 0;

  constructor(sandboxes: Pick<Sandboxes, "reach">, log: BaseLogger) {
    this.#sandboxes = sandboxes;
    this.#log = log;
  }

  /** How many tunnels are open. */
  get open(): number {
    return this.#open;
  }

  /** Serves one CONNECT request: a listener for the event of that name. */
  readonly accept = (request: IncomingMessage, client: Duplex, head: Buffer): void => {
    // A client that is gone is told by "close".
    client.on("error", () => client.destroy());
    this.#serve(request.url ?? "", client, head).catch((error: unknown) => {
      const [sandboxId, port] = request.url?.split(":") ?? [];
      this.#log.debug({ sandboxId, port, err: error }, "tunnel refused");
      refuse(client, asWrennError(error));
    });
  };

  async #serve(target: string, client: Duplex, head: Buffer): Promise<void> {
    const { id, port } = parseTarget(target);
    const reach = this.#sandboxes.reach(id);
    const guest = await this.#dial(reach, port, client);
    if (client.destroyed || reach.gone.aborted) {
      guest.destroy();
      client.destroy();
      return;
    }
    client.write("HTTP/1.1 200 Connection Established\r\n\r\n");
    if (head.length > 0) guest.write(head);
    this.#join(client, guest, reach.gone);
  }

  /** Ends the dial when the client has given up, or the sandbox has ended. */
  async #dial(reach: Reach, port: number, client: Duplex): Promise<Socket> {
    const given = new AbortController();
    const giveUp = (): void => {
      given.abort(new WrennError("sandbox_not_found"));
    };
    client.once("close", giveUp);
    try {
      return await withSignals([given.signal, reach.gone], (signal) => dialGuest(reach.address, port, signal));
    } finally {
      client.off("close", giveUp);
    }
  }

  /** Passes bytes on until both directions have ended. Each end of stream is passed on by itself; a reset ends both. */
  #join(client: Duplex, guest: Socket, gone: AbortSignal): void {
    this.#open++;
    const cut = (): void => {
      cutOff(guest);
      client.destroy();
    };
    gone.addEventListener("abort", cut, { once: true });
    guest.setTimeout(deadlines.dataPlaneIdle, cut);
    guest.on("error", () => client.destroy());
    guest.once("close", () => {
      this.#open--;
      gone.removeEventListener("abort", cut);
      // Whatever the guest has sent is on its way; without its end, the client must see a cut.
      if (!client.writableEnded) client.destroy();
    });
    client.once("end", () => {
      // A client that has gone altogether looks like one that has ended its direction and waits for an answer, until it is written to.
      // Even an empty write is refused then.
      client.write(noBytes);
      guest.setTimeout(deadlines.tunnelHalfClosed);
    });
    client.once("close", () => {
      // As with a connection of its own: what the client sent before its end arrives, and without that end the guest sees a cut.
      if (guest.writableEnded) guest.destroySoon();
      else cutOff(guest);
    });
    client.pipe(guest);
    guest.pipe(client);
  }
}

/** Resets a connection, but for one whose end is under way: Node fails to reset that, and would keep its descriptor for ever. */
function cutOff(socket: Socket): void {
  if (socket.writableEnded && !socket.writableFinished) socket.destroy();
  else socket.resetAndDestroy();
}

function parseTarget(target: string): { id: SandboxId; port: number } {
  const [name = "", portText = "", ...rest] = target.split(":");
  const port = Number(portText);
  if (rest.length > 0 || !/^\d{1,5}$/.test(portText) || port < 1 || port > highestPort) {
    throw new WrennError("invalid_request", {
      message: `"${target.slice(0, 80)}" is not <sandbox uuid>:<port>.`,
      details: { field: "port", min: 1, max: highestPort },
    });
  }
  return { id: parseUuid("sandbox", name), port };
}

function refuse(client: Duplex, error: WrennError): void {
  if (client.destroyed) return;
  const body = JSON.stringify(error.toBody());
  client.end(
    [
      `HTTP/1.1 ${error.status} ${error.code}`,
      "Content-Type: application/json",
      `Content-Length: ${Buffer.byteLength(body)}`,
      "Connection: close",
      "",
      body,
    ].join("\r\n"),
    // It has nothing more to say. Waiting for its end would keep the connection of one that never looks.
    () => client.destroy(),
  );
}
