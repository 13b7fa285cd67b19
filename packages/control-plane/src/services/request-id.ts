/** The id that connects a caller's failure with the log: the caller's own when it sends a usable one, else a new one. */
import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";

const usable = /^[A-Za-z0-9._-]{1,128}$/;

export function requestId(request: IncomingMessage): string {
  const given = request.headers["x-request-id"];
  return typeof given === "string" && usable.test(given) ? given : randomUUID();
}
