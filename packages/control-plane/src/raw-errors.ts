/** A failure as an answer where Fastify is not: on upgrades, on the data plane, while the server stops. */
import type { ServerResponse } from "node:http";
import type { WrennError } from "@wrenn/contract";

export function answerError(response: ServerResponse, error: WrennError, requestId: string): void {
  const body = Buffer.from(JSON.stringify(error.toBody(requestId)));
  response.writeHead(error.status, {
    "Content-Type": "application/json; charset=utf-8",
    "Content-Length": body.length,
    "X-Request-Id": requestId,
    // Tells an error of Wrenn from an answer of the guest with the same status.
    "Wrenn-Error": error.code,
  });
  response.end(body);
}
