/** Reaches a TCP port inside a guest: on its network device, or on its loopback through the guest agent. */
import { request } from "node:http";
import { createConnection, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, guestAgentPort, WrennError } from "@wrenn/contract";
import { hasErrno, withTimeLimit } from "@wrenn/system";

/** A service that has just been started may bind a moment later than it is asked for. Milliseconds before each attempt. */
const attemptDelaysMs = [0, 100, 200, 400] as const;

/**
 * @throws WrennError `port_closed` when nothing listens there or the guest does not answer within `deadlines.tunnelDial`; the signal's
 * reason when it is aborted
 */
export async function dialGuest(address: string, port: number, signal: AbortSignal): Promise<Socket> {
  const late = (): WrennError =>
    new WrennError("port_closed", {
      message: `The sandbox did not answer on port ${port} within ${deadlines.tunnelDial} ms.`,
      details: { port },
    });
  return withTimeLimit(deadlines.tunnelDial, late, [signal], (limited) => attemptDial(address, port, limited));
}

async function attemptDial(address: string, port: number, signal: AbortSignal): Promise<Socket> {
  for (const delayMs of attemptDelaysMs) {
    if (delayMs > 0) await delay(delayMs);
    const socket = (await dialDevice(address, port, signal)) ?? (await dialLoopback(address, port, signal));
    if (socket !== null) return socket;
  }
  throw new WrennError("port_closed", {
    message: `Nothing listens on port ${port} of the sandbox.`,
    details: { port },
  });
}

/** A connection to the guest's network device, or null when it is refused there. */
async function dialDevice(host: string, port: number, signal: AbortSignal): Promise<Socket | null> {
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const socket = createConnection({ host, port, noDelay: true, allowHalfOpen: true });
    const abort = (): void => {
      socket.destroy();
      reject(signal.reason instanceof Error ? signal.reason : new WrennError("port_closed"));
    };
    signal.addEventListener("abort", abort, { once: true });
    const fail = (error: Error): void => {
      signal.removeEventListener("abort", abort);
      if (hasErrno(error, "ECONNREFUSED") || hasErrno(error, "ECONNRESET")) resolve(null);
      else
        reject(
          new WrennError("port_closed", { message: `Port ${port} of the sandbox cannot be reached.`, cause: error }),
        );
    };
    socket.once("error", fail);
    socket.once("connect", () => {
      socket.off("error", fail);
      signal.removeEventListener("abort", abort);
      resolve(socket);
    });
  });
}

/** A connection to the guest's loopback, which only its agent can make; null when nothing listens there either. */
async function dialLoopback(host: string, port: number, signal: AbortSignal): Promise<Socket | null> {
  // The agent itself listens on both; asking it for its own port would be asking in a circle.
  if (port === guestAgentPort) return null;
  return new Promise((resolve, reject) => {
    const headers = { connection: "Upgrade", upgrade: "wrenn-tunnel" };
    const path = `/tunnel?port=${port}`;
    // The guest's socket as such: keeps a half-closed connection open, which an HTTP client's own would not.
    const connect = (): Socket => createConnection({ host, port: guestAgentPort, noDelay: true, allowHalfOpen: true });
    const outgoing = request({ path, headers, signal, createConnection: connect });
    outgoing.once("upgrade", (_response, socket: Socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
    });
    outgoing.once("response", (response) => {
      response.destroy();
      resolve(null);
    });
    outgoing.once("error", (cause) => {
      if (signal.aborted) reject(signal.reason instanceof Error ? signal.reason : cause);
      else resolve(null);
    });
    outgoing.end();
  });
}
