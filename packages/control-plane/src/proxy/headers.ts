/** Which headers cross between a caller and a sandbox. Neither the caller's key nor a sandbox's token reaches user code. */
import { apiKeySecret, guestAgentHeaders, guestAgentPort } from "@wrenn/contract";

/** Of one connection only (RFC 9110, 7.6.1), plus `expect`, which the server has answered, and `http2-settings` of h2c. */
const hopByHop: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "expect",
  "http2-settings",
]);

/** Wrenn's own, but the guest agent's to read. */
const agentHeaders: ReadonlySet<string> = new Set(Object.values(guestAgentHeaders));

const bearerKey = /^Bearer +(\S+) *$/i;

/** As a flat list of names and values, which is how Node has them and undici takes them. */
export function headersToGuest(raw: readonly string[], port: number, accessToken: string): string[] {
  const nominated = connectionTokens(raw);
  const headers: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] ?? "";
    const value = raw[at + 1] ?? "";
    const lower = name.toLowerCase();
    const isForAgent = port === guestAgentPort && agentHeaders.has(lower);
    if (hopByHop.has(lower) || nominated.has(lower) || (isForWrenn(lower, value) && !isForAgent)) continue;
    headers.push(name, value);
  }
  if (port === guestAgentPort) headers.push("X-Access-Token", accessToken);
  return headers;
}

/** `wrenn-*` on an answer is Wrenn's own word, so the guest's is dropped. */
export function headersFromGuest(raw: readonly (Buffer | string)[]): string[] {
  const all = raw.map((part) => (typeof part === "string" ? part : part.toString("latin1")));
  const nominated = connectionTokens(all);
  const headers: string[] = [];
  for (let at = 0; at + 1 < all.length; at += 2) {
    const name = all[at] ?? "";
    const lower = name.toLowerCase();
    if (hopByHop.has(lower) || nominated.has(lower) || lower.startsWith("wrenn-")) continue;
    headers.push(name, all[at + 1] ?? "");
  }
  return headers;
}

/** `Authorization: Basic` goes through: the guest agent takes the user from it, and other services what they like. */
function isForWrenn(name: string, value: string): boolean {
  if (name.startsWith("wrenn-") || name === "x-api-key" || name === "x-access-token") return true;
  return name === "authorization" && apiKeySecret(bearerKey.exec(value)?.[1] ?? "") !== null;
}

const none: ReadonlySet<string> = new Set();

/** Headers that a `Connection` header declares to be of this connection only. */
function connectionTokens(raw: readonly string[]): ReadonlySet<string> {
  let tokens: Set<string> | undefined;
  for (let at = 0; at + 1 < raw.length; at += 2) {
    if (raw[at]?.toLowerCase() !== "connection") continue;
    for (const token of (raw[at + 1] ?? "").split(",")) {
      const name = token.trim().toLowerCase();
      // Nobody may have the framing or the routing of a message dropped this way.
      if (name === "" || name === "keep-alive" || name === "close" || name === "content-length" || name === "host")
        continue;
      tokens ??= new Set();
      tokens.add(name);
    }
  }
  return tokens ?? none;
}
