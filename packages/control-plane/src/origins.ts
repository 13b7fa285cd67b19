/** Which web pages may use this server from a browser: its own, and those that its operator lists. */
import type { IncomingHttpHeaders } from "node:http";

/**
 * Whether the page that sent a request may. Requests without an origin are not a page's. Used for WebSockets, which browsers open
 * to any server, and for requests across origins.
 * @param allowed origins from `WRENN_ALLOWED_ORIGINS`, such as `https://app.example.com`
 */
export function isAllowedOrigin({ origin, host }: IncomingHttpHeaders, allowed: readonly string[]): boolean {
  return origin === undefined || allowed.includes(origin) || isOwn(origin, host);
}

/** A proxy in front may speak HTTPS with the page and HTTP with this server, so the scheme says nothing. */
function isOwn(origin: string, host: string | undefined): boolean {
  return host !== undefined && URL.canParse(origin) && new URL(origin).host === host.toLowerCase();
}
