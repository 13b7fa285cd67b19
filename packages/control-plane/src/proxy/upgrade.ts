/** Requests that ask to go on in another protocol: WebSocket and the like become bytes in both directions. */
import http from "node:http";
import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { headersFromGuest } from "./headers.ts";

/** Protocols that a server may ignore, and that clients ask for without need: Java's HTTP client asks for h2c. */
const ignorable = /^(h2c|tls\/[\d.]+)$/i;

export function isIgnorableUpgrade(request: IncomingMessage): boolean {
  const protocols = (request.headers.upgrade ?? "").split(",").map((protocol) => protocol.trim());
  return protocols.every((protocol) => ignorable.test(protocol));
}

/**
 * Has the server read the request again as if it had asked for no upgrade. Node decides by the head alone, and hands the
 * connection over unread.
 */
export function ignoreUpgrade(server: Server, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const { rawHeaders } = request;
  let text = `${request.method ?? "GET"} ${request.url ?? "/"} HTTP/${request.httpVersion}\r\n`;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? "";
    if (/^(upgrade|connection|http2-settings)$/i.test(name)) continue;
    text += `${name}: ${rawHeaders[at + 1] ?? ""}\r\n`;
  }
  if (head.length > 0) socket.unshift(head);
  socket.unshift(Buffer.from(`${text}\r\n`, "latin1"));
  server.emit("connection", socket);
}

/** A response on a connection that Node has handed over, for the case that the upgrade does not come about. */
export function responseOn(request: IncomingMessage, socket: Socket): http.ServerResponse {
  const response = new http.ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  const onDrain = (): void => {
    response.emit("drain");
  };
  socket.on("drain", onDrain);
  response.once("finish", () => {
    response.detachSocket(socket);
    socket.off("drain", onDrain).end();
  });
  return response;
}

/** Tells the caller that the guest agreed, then joins the two until either ends. */
export function join(
  client: Duplex,
  head: Buffer,
  guest: Duplex,
  guestHeaders: readonly (Buffer | string)[],
  protocol: string,
): void {
  const headers = headersFromGuest(guestHeaders);
  let text = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n`;
  for (let at = 0; at + 1 < headers.length; at += 2) text += `${headers[at] ?? ""}: ${headers[at + 1] ?? ""}\r\n`;
  client.write(Buffer.from(`${text}\r\n`, "latin1"));
  if (head.length > 0) guest.write(head);
  relay(client, guest);
  relay(guest, client);
}

/** An orderly end is passed on as one; anything else ends the other side at once. */
function relay(from: Duplex, to: Duplex): void {
  from.pipe(to);
  from.on("error", () => {
    to.destroy();
  });
  from.on("close", () => {
    if (!from.readableEnded) to.destroy();
  });
}
