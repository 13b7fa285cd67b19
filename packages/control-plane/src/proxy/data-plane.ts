/**
 * Carries requests into sandboxes (docs/architecture.md, "Data plane"). Stands in front of the API on the same listener
 * and takes every request that names a sandbox.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asWrennError, guestAgentPort, WrennError } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import type { Logger } from "pino";
import type { TunnelPools } from "../hosts/tunnel-pools.ts";
import type { Activity } from "../services/activity.ts";
import { requestId } from "../services/request-id.ts";
import { authorize } from "./authorize.ts";
import type { Authorizer, DataPlaneTarget } from "./authorize.ts";
import { forward } from "./forward.ts";
import type { Forwarding } from "./forward.ts";
import { headersToGuest } from "./headers.ts";
import { join, responseOn } from "./upgrade.ts";

export interface DataPlaneOptions extends Authorizer {
  readonly pools: TunnelPools;
  readonly activity: Activity;
  readonly log: Logger;
  /** A host did not let a request into a sandbox that should run. */
  readonly onTunnelFailure: (id: SandboxId) => void;
}

export class DataPlane {
  readonly #options: DataPlaneOptions;
  /** Upgraded connections, which the server no longer counts as its own. */
  readonly #upgraded = new Set<Duplex>();

  constructor(options: DataPlaneOptions) {
    this.#options = options;
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    if (response.socket === null) closeWithConnection(request, response);
    void this.#handle(request, response);
  }

  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    this.#upgraded.add(socket);
    socket.once("close", () => {
      this.#upgraded.delete(socket);
    });
    // Node's servers hand over the connection itself; its type says less, for the sake of other servers.
    if (!(socket instanceof Socket)) {
      socket.destroy();
      return;
    }
    socket.setNoDelay(true).setTimeout(0);
    const protocol = request.headers.upgrade ?? "";
    const response = responseOn(request, socket);
    void this.#handle(request, response, {
      protocol,
      accept: (guest, guestHeaders) => {
        response.detachSocket(socket);
        join(socket, head, guest, guestHeaders, protocol);
      },
    });
  }

  /** Ends the connections that were upgraded, which a server that closes waits for but does not end. */
  endUpgraded(): void {
    for (const socket of this.#upgraded) socket.destroy();
  }

  async #handle(request: IncomingMessage, response: ServerResponse, upgrade?: Forwarding["upgrade"]): Promise<void> {
    try {
      const url = request.url ?? "";
      if (!url.startsWith("/"))
        throw new WrennError("invalid_request", { message: "The request's target is not a path." });
      const target = await authorize(request, this.#options);
      // An upgraded connection lives on without its response.
      const connection = upgrade === undefined ? response : request.socket;
      if (response.destroyed || connection.destroyed) return;
      connection.once("close", this.#options.activity.hold(target.sandboxId));
      forward({
        request,
        response,
        headers: headersToGuest(request.rawHeaders, target.port, target.accessToken),
        tunnels: () => this.#options.pools.get(target),
        ...(upgrade === undefined ? {} : { upgrade }),
        onFailure: (error) => {
          this.#noteFailure(target, error);
          this.#refuse(request, response, error);
        },
      });
    } catch (error) {
      this.#refuse(request, response, error);
    }
  }

  /** A port where nothing listens is the user's affair; anything else may be news about the sandbox or its host. */
  #noteFailure({ sandboxId, port }: DataPlaneTarget, error: WrennError): void {
    if (error.code === "invalid_request" || (error.code === "port_closed" && port !== guestAgentPort)) return;
    this.#options.onTunnelFailure(sandboxId);
  }

  #refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    if (response.destroyed || response.headersSent) return;
    const wrennError = asWrennError(error);
    const id = requestId(request);
    const { method } = request;
    if (wrennError.status >= 500) this.#options.log.warn({ reqId: id, method, err: error }, "data plane: failed");
    else this.#options.log.debug({ reqId: id, method, code: wrennError.code }, "data plane: refused");
    const body = Buffer.from(JSON.stringify(wrennError.toBody(id)));
    response.writeHead(wrennError.status, {
      "Content-Type": "application/json; charset=utf-8",
      "Content-Length": body.length,
      "X-Request-Id": id,
      // Tells an error of Wrenn from an answer of the guest with the same status.
      "Wrenn-Error": wrennError.code,
    });
    response.end(body);
  }
}

/** A pipelined request's answer has no connection before its turn, and would not hear that the connection has ended before that. */
function closeWithConnection({ socket }: IncomingMessage, response: ServerResponse): void {
  const close = (): void => {
    response.destroy().emit("close");
  };
  socket.once("close", close);
  response.once("close", () => socket.off("close", close));
}
