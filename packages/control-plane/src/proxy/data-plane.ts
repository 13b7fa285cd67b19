/**
 * Carries requests into sandboxes (docs/architecture.md, "Data plane"). Stands in front of the API on the same listener
 * and takes every request that names a sandbox.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asWrennError, guestAgentPort, WrennError } from "@wrenn/contract";
import type { ErrorCode, SandboxId } from "@wrenn/contract";
import type { Logger } from "pino";
import type { TunnelPools } from "../hosts/tunnel-pools.ts";
import type { Activity } from "../services/activity.ts";
import { requestId } from "../services/request-id.ts";
import { answerError } from "../raw-errors.ts";
import { authorize, namedSandbox } from "./authorize.ts";
import type { Authorizer, DataPlaneTarget } from "./authorize.ts";
import { forward } from "./forward.ts";
import type { Forwarding } from "./forward.ts";
import { headersToGuest } from "./headers.ts";
import { join, responseOn } from "./upgrade.ts";

/** Who counts what the data plane carries. */
export interface DataPlaneObserver {
  began(): void;
  /** Of a request that was upgraded: that it was. The status is null when its sender had gone before the answer was complete. */
  ended(status: number | null, milliseconds: number): void;
  refused(code: ErrorCode): void;
  upgraded(): void;
  upgradeClosed(): void;
}

export interface DataPlaneOptions extends Authorizer {
  readonly pools: TunnelPools;
  readonly activity: Activity;
  readonly log: Logger;
  readonly observer: DataPlaneObserver;
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
    const ended = this.#begin();
    response.once("close", () => {
      ended(response.writableFinished ? response.statusCode : null);
    });
    void this.#handle(request, response);
  }

  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const ended = this.#begin();
    const { observer } = this.#options;
    this.#upgraded.add(socket);
    socket.once("close", () => {
      this.#upgraded.delete(socket);
      ended(null);
    });
    // Node's servers hand over the connection itself; its type says less, for the sake of other servers.
    if (!(socket instanceof Socket)) {
      socket.destroy();
      return;
    }
    socket.setNoDelay(true).setTimeout(0);
    const protocol = request.headers.upgrade ?? "";
    const response = responseOn(request, socket);
    response.once("finish", () => {
      ended(response.statusCode);
    });
    void this.#handle(request, response, {
      protocol,
      accept: (guest, guestHeaders) => {
        response.detachSocket(socket);
        ended(101);
        observer.upgraded();
        if (socket.destroyed) observer.upgradeClosed();
        else socket.once("close", () => observer.upgradeClosed());
        join(socket, head, guest, guestHeaders, protocol);
      },
    });
  }

  /** Ends the connections that were upgraded, which a server that closes waits for but does not end. */
  endUpgraded(): void {
    for (const socket of this.#upgraded) socket.destroy();
  }

  /** Returns what is to be told of the request's end, which is believed once. */
  #begin(): (status: number | null) => void {
    const { observer } = this.#options;
    const start = performance.now();
    let isOver = false;
    observer.began();
    return (status) => {
      if (isOver) return;
      isOver = true;
      observer.ended(status, performance.now() - start);
    };
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
    const about = { reqId: id, sandboxId: namedSandbox(request), method: request.method };
    this.#options.observer.refused(wrennError.code);
    if (wrennError.status >= 500) this.#options.log.warn({ ...about, err: error }, "data plane: failed");
    else this.#options.log.debug({ ...about, code: wrennError.code }, "data plane: refused");
    answerError(response, wrennError, id);
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
