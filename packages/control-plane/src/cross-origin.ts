/**
 * Pages of other origins: which may use this server, and what tells their browsers so (CORS). For the API and the data plane alike,
 * so it stands before both.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { WrennError } from "@wrenn/contract";
import { requestId } from "./services/request-id.ts";
import { isAllowedOrigin } from "./origins.ts";
import { answerError } from "./raw-errors.ts";

/** How long a browser may remember what it was told, in seconds. */
const preflightMaxAge = 600;

/**
 * Lets pages of allowed origins read the answer, whoever gives it, and answers browsers that ask beforehand whether a page may send
 * its request at all.
 * @param allowed origins from `WRENN_ALLOWED_ORIGINS`
 * @returns whether that was the request, so that nothing is left to do
 */
export function answerCrossOrigin(
  request: IncomingMessage,
  response: ServerResponse,
  allowed: readonly string[],
): boolean {
  const { origin } = request.headers;
  if (origin === undefined) return false;
  const isAllowed = isAllowedOrigin(request.headers, allowed);
  if (isAllowed) {
    // No cookies go with such requests, so "*" may stand for all headers of sandboxes and of RPC.
    response.setHeader("Access-Control-Allow-Origin", origin);
    response.setHeader("Access-Control-Expose-Headers", "*");
    response.setHeader("Vary", "Origin");
  }
  const isPreflight = request.method === "OPTIONS" && request.headers["access-control-request-method"] !== undefined;
  if (!isPreflight) return false;
  if (isAllowed) {
    response.writeHead(204, {
      "Access-Control-Allow-Methods": "*",
      // Which "*" does not mean.
      "Access-Control-Allow-Headers": "*, Authorization",
      "Access-Control-Max-Age": preflightMaxAge,
    });
    response.end();
  } else {
    const message = `A page of ${origin.slice(0, 200)} may not use this server.`;
    answerError(response, new WrennError("origin_not_allowed", { message }), requestId(request));
  }
  return true;
}

/**
 * Adds what a sandbox answers to what a page of another origin is told already: which pages may read it is Wrenn's to say. One by
 * one, because `writeHead` on Node.js 20 keeps only the last of several headers of one name where others have been set before.
 */
export function addHeadersForPage(response: ServerResponse, headers: readonly string[]): void {
  for (let at = 0; at + 1 < headers.length; at += 2) {
    const name = headers[at] ?? "";
    if (!/^access-control-/i.test(name)) response.appendHeader(name, headers[at + 1] ?? "");
  }
}

/** Whether the answer goes to a page of another origin that may read it. */
export function isForPage(response: ServerResponse): boolean {
  return response.hasHeader("Access-Control-Allow-Origin");
}
