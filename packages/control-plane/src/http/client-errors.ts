/** What never becomes a request, because Node's parser refuses it or nobody takes its method, is answered by hand. */
import { randomUUID } from "node:crypto";
import { STATUS_CODES } from "node:http";
import type { Duplex } from "node:stream";
import { WrennError } from "@wrenn/contract";

/** How long a client that was refused may take to read why, before its connection is ended. */
const lingerMs = 2_000;

/** What a parser's failure means; null where the connection has gone and nobody is left to be told. */
export function clientErrorOf(error: NodeJS.ErrnoException): WrennError | null {
  switch (error.code ?? "") {
    case "ECONNRESET":
    case "EPIPE":
      return null;
    case "HPE_HEADER_OVERFLOW":
      return new WrennError("headers_too_large");
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return new WrennError("request_timeout");
    default:
      return new WrennError("invalid_request", { message: "That is not an HTTP/1.1 request.", cause: error });
  }
}

/** Answers on a connection that has no response to write to, and ends it. Returns the answer's request id. */
export function answerOnSocket(socket: Duplex, error: WrennError): string {
  const id = randomUUID();
  const body = JSON.stringify(error.toBody(id));
  const head = [
    `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status] ?? ""}`,
    "Connection: close",
    "Content-Type: application/json; charset=utf-8",
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${id}`,
    `Wrenn-Error: ${error.code}`,
  ];
  socket.end(`${head.join("\r\n")}\r\n\r\n${body}`);
  // Ended at once while it still sends, it would lose the answer; left to itself, it could stay for ever.
  const late = setTimeout(() => socket.destroy(), lingerMs);
  socket.once("close", () => {
    clearTimeout(late);
  });
  return id;
}
