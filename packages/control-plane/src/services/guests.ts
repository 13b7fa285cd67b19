/** Guest agents of running sandboxes, as this server's own services call them: its REST API and its WebSockets. */
import { createClient } from "@connectrpc/connect";
import type { Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { filesystemProto, guestAgentPort, processProto, WrennError } from "@wrenn/contract";
import type { SandboxId, TeamId } from "@wrenn/contract";
import { fetch, Headers } from "undici";
import type { RequestInit, Response } from "undici";
import type { TunnelPools } from "../hosts/tunnel-pools.ts";
import type { AccessTokens } from "./access-tokens.ts";
import { assertReachable } from "./sandbox-targets.ts";
import type { SandboxTargets } from "./sandbox-targets.ts";

/** Requests go through the sandbox's own tunnels, so the name of the server is never looked up. */
const origin = "http://sandbox";

export interface GuestsOptions {
  readonly targets: SandboxTargets;
  readonly tokens: AccessTokens;
  readonly pools: TunnelPools;
}

/** One sandbox's guest agent. Failures of the Connect clients and of `fetch` become errors of the registry by `errorFromGuest`. */
export interface Guest {
  readonly sandboxId: SandboxId;
  readonly processes: Client<typeof processProto.Process>;
  readonly filesystem: Client<typeof filesystemProto.Filesystem>;
  /** A request to the guest agent's own HTTP endpoints. `path` begins with a slash. */
  fetch(path: string, init?: RequestInit): Promise<Response>;
}

export class Guests {
  readonly #with: GuestsOptions;

  constructor(options: GuestsOptions) {
    this.#with = options;
  }

  /** @throws WrennError `sandbox_not_found`, also for another team's; `sandbox_state_conflict` when it does not run. */
  async reach(teamId: TeamId, sandboxId: SandboxId): Promise<Guest> {
    const target = await this.#with.targets.find(sandboxId);
    if (target === null || target.teamId !== teamId) throw new WrennError("sandbox_not_found");
    assertReachable(target);
    const tunnel = { sandboxId, port: guestAgentPort, hostAddress: target.hostAddress };
    const send = async (url: string, init: RequestInit = {}): Promise<Response> => {
      const headers = new Headers(init.headers);
      headers.set("x-access-token", this.#with.tokens.of(sandboxId));
      const pooled = this.#with.pools.get(tunnel);
      pooled.lastUsed = performance.now();
      return fetch(url, { ...init, headers, dispatcher: pooled.pool });
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
    };
  }
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
