/** Guest agents of running sandboxes, as this server's own services call them: its REST API and its WebSockets. */
import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { filesystemProto, guestAgentPort, processProto } from "@wrenn/contract";
import type { SandboxId, TeamId } from "@wrenn/contract";
import { DecoratorHandler, fetch, Headers } from "undici";
import type { Dispatcher, RequestInit, Response } from "undici";
import type { TunnelPools } from "../hosts/tunnel-pools.ts";
import type { AccessTokens } from "./access-tokens.ts";
import type { Activity } from "./activity.ts";
import type { SandboxTargets } from "./sandbox-targets.ts";

/** Requests go through the sandbox's own tunnels, so the name of the server is never looked up. */
const origin = "http://sandbox";

export interface GuestsOptions {
  readonly targets: SandboxTargets;
  readonly tokens: AccessTokens;
  readonly pools: TunnelPools;
  readonly activity: Activity;
}

export interface ReachOptions {
  /** Whether calls keep the sandbox from timing out, for as long as they last. Not what only looks at it, such as its metrics. */
  readonly countsAsUse?: boolean;
}

/** One sandbox's guest agent. Failures of the Connect clients and of `fetch` become errors of the registry by `errorFromGuest`. */
export interface Guest {
  readonly sandboxId: SandboxId;
  readonly processes: Client<typeof processProto.Process>;
  readonly filesystem: Client<typeof filesystemProto.Filesystem>;
  /** A request to the guest agent's own HTTP endpoints. `path` begins with a slash. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
  /** As `fetch`, with Node's streams as bodies, which carry bytes in bulk faster. Throws undici's errors. */
  request(path: string, options: GuestRequest): Promise<Dispatcher.ResponseData>;
}

export type GuestRequest = Pick<
  Dispatcher.RequestOptions,
  "method" | "body" | "signal" | "headersTimeout" | "bodyTimeout"
> & { readonly headers?: Readonly<Record<string, string>> };

export class Guests {
  readonly #with: GuestsOptions;

  constructor(options: GuestsOptions) {
    this.#with = options;
  }

  /** @throws WrennError `sandbox_not_found`, also for another team's; `sandbox_state_conflict` when it does not run. */
  async reach(teamId: TeamId, sandboxId: SandboxId, { countsAsUse = true }: ReachOptions = {}): Promise<Guest> {
    const target = await this.#with.targets.findReachable(teamId, sandboxId);
    const tunnel = { sandboxId, port: guestAgentPort, hostAddress: target.hostAddress };
    const token = this.#with.tokens.of(sandboxId);
    const tunnels = (): Dispatcher => {
      const pooled = this.#with.pools.get(tunnel);
      pooled.lastUsed = performance.now();
      if (!countsAsUse) return pooled.pool;
      return pooled.pool.compose(
        (dispatch) => (options, handler) => dispatch(options, untilEnded(handler, this.#with.activity.hold(sandboxId))),
      );
    };
    const send = async (url: string, init: RequestInit = {}): Promise<Response> => {
      const headers = new Headers(init.headers);
      headers.set("x-access-token", token);
      return fetch(url, { ...init, headers, dispatcher: tunnels() });
    };
    const transport = createConnectTransport({
      baseUrl: origin,
      // Output is bytes: JSON would carry it as base64.
      useBinaryFormat: true,
      fetch: throughUndici(send),
    });
    return {
      sandboxId,
      processes: createClient(processProto.Process, transport),
      filesystem: createClient(filesystemProto.Filesystem, transport),
      fetch: async (path, init) => send(`${origin}${path}`, init),
      request: async (path, options) =>
        tunnels().request({ ...options, path, headers: { ...options.headers, "x-access-token": token } }),
    };
  }
}

/**
 * The same handler, and `onEnd` when the last of its call is over the wire, or the call has failed. Nothing depends on what
 * becomes of the answer: who does not read it to its end need not say so.
 */
function untilEnded(handler: Dispatcher.DispatchHandler, onEnd: () => void): Dispatcher.DispatchHandler {
  // Takes handlers of undici's older kind too, such as that of its own fetch.
  const inner: Dispatcher.DispatchHandler = new DecoratorHandler(handler);
  return {
    onRequestStart: (controller, context) => inner.onRequestStart?.(controller, context),
    onRequestUpgrade: (controller, status, headers, socket) => {
      socket.once("close", onEnd);
      inner.onRequestUpgrade?.(controller, status, headers, socket);
    },
    onResponseStart: (controller, status, headers, message) =>
      inner.onResponseStart?.(controller, status, headers, message),
    onResponseData: (controller, chunk) => inner.onResponseData?.(controller, chunk),
    onResponseEnd: (controller, trailers) => {
      onEnd();
      inner.onResponseEnd?.(controller, trailers);
    },
    onResponseError: (controller, error) => {
      onEnd();
      inner.onResponseError?.(controller, error);
    },
  };
}

/**
 * The RPC library's `fetch`, made of undici's: Node's own cannot be given connections of another version of undici. The two
 * have the same values and differ in their types.
 */
function throughUndici(send: (url: string, init: RequestInit) => Promise<Response>): typeof globalThis.fetch {
  return async (input, init) => {
    const { method = "GET", body = null, signal = null } = init ?? {};
    const headers = [...new globalThis.Headers(init?.headers)];
    if (typeof input !== "string") throw new TypeError("expected an address as text");
    if (body !== null && !(body instanceof Uint8Array)) throw new TypeError("expected a body of bytes");
    const response = await send(input, { method, headers, body, signal });
    return new globalThis.Response(response.body, { status: response.status, headers: [...response.headers] });
  };
}

/** As the guest agent reads it: whose files and processes are meant. */
export function asUser(user: string | undefined): { authorization?: string } {
  return user === undefined ? {} : { authorization: `Basic ${Buffer.from(`${user}:`).toString("base64")}` };
}
