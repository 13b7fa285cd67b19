/** Which sandbox and port a data-plane request is for, and whether its sender may reach them. */
import type { IncomingMessage } from "node:http";
import { dataPlaneHeaders, guestAgentPort, parseId, WrennError } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import type { TunnelTarget } from "../hosts/tunnel.ts";
import type { AccessTokens } from "../services/access-tokens.ts";
import type { ApiKeys } from "../services/api-keys.ts";
import { assertReachable } from "../services/sandbox-targets.ts";
import type { SandboxTargets } from "../services/sandbox-targets.ts";
import { presentedKey } from "../services/presented-key.ts";
import type { SandboxTarget } from "../store/sandboxes.ts";

export interface Authorizer {
  readonly apiKeys: ApiKeys;
  readonly tokens: AccessTokens;
  readonly targets: SandboxTargets;
}

export interface DataPlaneTarget extends TunnelTarget {
  readonly accessToken: string;
}

/** Served by the guest agent to its host only: configuration, writing back its disk, and bytes to the guest's loopback. */
const guestInternal: ReadonlySet<string> = new Set(["init", "sync", "tunnel"]);
const guestInternalUpgrade = "wrenn-tunnel";

export function isDataPlane(request: IncomingMessage): boolean {
  return request.headers[dataPlaneHeaders.sandboxId] !== undefined;
}

/** The sandbox that a request names, for the log; undefined where it names none that could exist. */
export function namedSandbox(request: IncomingMessage): SandboxId | undefined {
  try {
    return parseId("sandbox", single(request.headers[dataPlaneHeaders.sandboxId]));
  } catch {
    return undefined;
  }
}

/** @throws WrennError for everything that keeps the sender from reaching the sandbox */
export async function authorize(request: IncomingMessage, authorizer: Authorizer): Promise<DataPlaneTarget> {
  const sandboxId = parseId("sandbox", single(request.headers[dataPlaneHeaders.sandboxId]));
  const port = parsePort(request.headers[dataPlaneHeaders.port]);
  const target = await findAllowed(request, sandboxId, authorizer);
  if (port === guestAgentPort && isGuestInternal(request)) throw new WrennError("route_not_found");
  assertReachable(target);
  return { sandboxId, port, hostAddress: target.hostAddress, accessToken: authorizer.tokens.of(sandboxId) };
}

/** By the sandbox's own token, or a key of its team. To anyone else it does not exist. */
async function findAllowed(
  request: IncomingMessage,
  id: SandboxId,
  { apiKeys, tokens, targets }: Authorizer,
): Promise<SandboxTarget> {
  const token = request.headers["x-access-token"];
  const hasToken = typeof token === "string" && tokens.matches(id, token);
  const key = presentedKey(request.headers);
  if (!hasToken && key === null) {
    throw new WrennError("unauthorized", {
      message: "The request has neither an API key nor this sandbox's access token.",
      suggestion: "Send a key in the X-API-Key header, or the sandbox's access token in X-Access-Token.",
    });
  }
  const owner = hasToken || key === null ? null : await apiKeys.verify(key);
  const target = targets.peek(id) ?? (await targets.find(id));
  if (target === null || (owner !== null && owner.teamId !== target.teamId)) throw new WrennError("sandbox_not_found");
  return target;
}

function parsePort(header: string | string[] | undefined): number {
  if (header === undefined) return guestAgentPort;
  const text = single(header);
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535) {
    throw new WrennError("invalid_request", {
      message: `"${text.slice(0, 80)}" is not a port.`,
      details: { fields: [{ field: dataPlaneHeaders.port, problem: "expected a number from 1 to 65535" }] },
    });
  }
  return port;
}

/**
 * Compared as leniently as any router might: percent-decoded, with empty, `.` and `..` components resolved, whatever the
 * case. Only a plain path is let through at all: the absolute form of a request's target could name another.
 */
export function isGuestInternal({ url = "", headers }: Pick<IncomingMessage, "url" | "headers">): boolean {
  if (single(headers.upgrade).toLowerCase().includes(guestInternalUpgrade)) return true;
  const [path = ""] = url.split(/[?#]/, 1);
  const components: string[] = [];
  for (const component of decoded(path).replaceAll("\\", "/").split("/")) {
    if (component === "..") components.pop();
    else if (component !== "" && component !== ".") components.push(component.toLowerCase());
  }
  return guestInternal.has(components[0] ?? "");
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw new WrennError("invalid_request", { message: "The path is not a valid percent-encoding." });
  }
}

function single(header: string | string[] | undefined): string {
  return Array.isArray(header) ? header.join(",") : (header ?? "");
}
