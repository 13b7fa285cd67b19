/**
 * Once a request has been answered before all of it had arrived: reads the rest for a while, because a client that is busy sending
 * may see the answer only afterwards, and because its next request comes behind it.
 */
import type { IncomingMessage } from "node:http";
import { deadlines } from "@wrenn/contract";

export function discardRest(request: IncomingMessage): void {
  if (request.complete) return;
  const { socket } = request;
  const late = setTimeout(() => socket.destroy(), deadlines.refusedBody);
  const stop = (): void => {
    clearTimeout(late);
    // The connection may carry many such requests.
    socket.off("close", stop);
  };
  request.once("end", stop);
  socket.once("close", stop);
  request.resume();
}
