/** The API's WebSockets: who may open one, which conversation it is for, and how all of them end with the server. */
import type { IncomingMessage } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { asWrennError, deadlines, streamLimits, WrennError } from "@wrenn/contract";
import type { TeamId } from "@wrenn/contract";
import type { Logger } from "pino";
import { WebSocketServer } from "ws";
import type { Server } from "ws";
import { responseOn } from "../../proxy/upgrade.ts";
import type { ApiKeys } from "../../services/api-keys.ts";
import type { Commands } from "../../services/commands.ts";
import { presentedKey } from "../../services/presented-key.ts";
import { requestId } from "../../services/request-id.ts";
import { isAllowedOrigin } from "../../origins.ts";
import { answerError } from "../../raw-errors.ts";
import { attachStream } from "./attach-stream.ts";
import type { StreamConversation } from "./conversation.ts";
import { execStream } from "./exec-stream.ts";
import type { HeartbeatTiming } from "./heartbeat.ts";
import { Opening } from "./opening.ts";
import { parseStreamAddress } from "./stream-address.ts";
import type { StreamAddress } from "./stream-address.ts";
import { ClientLeft, StreamSocket, TellingWebSocket } from "./stream-socket.ts";
import { terminalStream } from "./terminal-stream.ts";

export interface StreamTiming extends HeartbeatTiming {
  /** How long a client may take to say who it is and what it wants. */
  readonly openingMs: number;
}

/** Counts them. Routes are as few as there are, outcomes `exit`, `client_left` and the codes of errors. */
export interface StreamObserver {
  began(route: string): void;
  ended(route: string, outcome: string): void;
}

export interface StreamsOptions {
  readonly apiKeys: ApiKeys;
  readonly commands: Commands;
  readonly allowedOrigins: readonly string[];
  readonly timing: StreamTiming;
  readonly observer: StreamObserver;
  readonly log: Logger;
}

export class Streams {
  readonly #with: StreamsOptions;
  readonly #open = new Set<StreamSocket>();
  readonly #server: Server<typeof TellingWebSocket>;
  #isClosing = false;

  constructor(options: StreamsOptions) {
    this.#with = options;
    this.#server = new WebSocketServer({
      noServer: true,
      clientTracking: false,
      WebSocket: TellingWebSocket,
      maxPayload: streamLimits.messageBytes,
      // A few bytes could be made to fill memory.
      perMessageDeflate: false,
    });
    this.#server.on("wsClientError", (error, socket, request) => {
      this.#refuse(request, socket, new WrennError("invalid_request", { message: `${error.message}.`, cause: error }));
    });
  }

  /** False when the address is none of a WebSocket: it is for somebody else to answer. */
  handleUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
    let address: StreamAddress | null;
    try {
      address = parseStreamAddress(request.url ?? "");
    } catch (error) {
      this.#refuse(request, socket, error);
      return true;
    }
    if (address === null) return false;
    void this.#upgrade(address, request, socket, head);
    return true;
  }

  /** Tells all clients that the server stops. Their processes go on, and can be attached to when it is back. */
  close(): void {
    this.#isClosing = true;
    for (const socket of this.#open) void socket.fail(new WrennError("shutting_down"));
    setTimeout(() => {
      for (const socket of this.#open) socket.terminate();
    }, deadlines.streamGoodbye).unref();
  }

  async #upgrade(address: StreamAddress, request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
    try {
      // Node's servers hand over the connection itself; its type says less, for the sake of other servers.
      if (!(socket instanceof Socket)) throw new WrennError("internal", { message: "That is no connection." });
      const teamId = await this.#admit(address, request);
      if (socket.destroyed) return;
      this.#server.handleUpgrade(request, socket, head, (webSocket) => {
        const id = requestId(request);
        const stream = new StreamSocket(webSocket, socket, id, this.#with.timing);
        void this.#converse(address, stream, teamId);
      });
    } catch (error) {
      this.#refuse(request, socket, error);
    }
  }

  /** The caller's team; null where it has not said who it is. */
  async #admit({ sandboxId }: StreamAddress, { headers }: IncomingMessage): Promise<TeamId | null> {
    const { apiKeys, commands, allowedOrigins } = this.#with;
    if (!isAllowedOrigin(headers, allowedOrigins)) throw new WrennError("origin_not_allowed");
    const key = presentedKey(headers);
    if (key === null) return null;
    const { teamId } = await apiKeys.verify(key);
    await commands.assertReachable(teamId, sandboxId);
    return teamId;
  }

  async #converse(address: StreamAddress, socket: StreamSocket, knownTeam: TeamId | null): Promise<void> {
    const { apiKeys, commands, timing } = this.#with;
    const opening = new Opening(socket, timing.openingMs);
    const started = performance.now();
    const said = { reqId: socket.requestId, route: address.route, sandboxId: address.sandboxId };
    this.#open.add(socket);
    this.#with.observer.began(address.route);
    let teamId = knownTeam;
    let outcome = "exit";
    try {
      if (this.#isClosing) throw new WrennError("shutting_down");
      teamId ??= await opening.authenticate(apiKeys);
      await this.#follow(address, { socket, opening, teamId, sandboxId: address.sandboxId, commands });
    } catch (error) {
      outcome = error instanceof ClientLeft ? "client_left" : asWrennError(error).code;
      if (!(error instanceof ClientLeft)) await this.#fail(socket, error, said);
    } finally {
      opening.end();
      this.#open.delete(socket);
      this.#with.observer.ended(address.route, outcome);
      const milliseconds = Math.round(performance.now() - started);
      this.#with.log.info({ ...said, teamId, outcome, milliseconds }, "stream");
    }
  }

  async #follow(address: StreamAddress, conversation: StreamConversation): Promise<void> {
    switch (address.kind) {
      case "command":
        return execStream(conversation);
      case "terminal":
        return terminalStream(conversation);
      case "attach":
        return attachStream(conversation, address);
    }
  }

  async #fail(socket: StreamSocket, thrown: unknown, said: Record<string, unknown>): Promise<void> {
    const error = asWrennError(thrown);
    if (error.status >= 500) this.#with.log.warn({ ...said, err: thrown }, "stream failed");
    await socket.fail(error);
  }

  #refuse(request: IncomingMessage, socket: Duplex, thrown: unknown): void {
    const error = asWrennError(thrown);
    const id = requestId(request);
    if (error.status >= 500) this.#with.log.error({ reqId: id, err: thrown }, "stream could not be opened");
    else this.#with.log.info({ reqId: id, code: error.code }, "stream refused");
    if (!(socket instanceof Socket) || socket.destroyed) socket.destroy();
    else answerError(responseOn(request, socket), error, id);
  }
}
