/** A byte stream through a host agent to one TCP port inside a sandbox: `CONNECT <sandbox uuid>:<port>`. */
import net from "node:net";
import { deadlines, errorBodySchema, errorRegistry, isErrorCode, WrennError } from "@wrenn/contract";
import type { ErrorCode, SandboxId } from "@wrenn/contract";
import { parseHostAddress, socketOptions } from "./host-address.ts";

export interface TunnelTarget {
  readonly hostAddress: string;
  readonly sandboxId: SandboxId;
  readonly port: number;
}

export type OnTunnel = (...answer: [error: WrennError, socket: null] | [error: null, socket: net.Socket]) => void;

/** Far more than an agent answers with; a peer that is no agent must not fill memory. */
const maxAnswerBytes = 65_536;
const endOfHead = Buffer.from("\r\n\r\n");
const contentLength = /\r\ncontent-length: *(\d+) *\r\n/i;
const statusLine = /^HTTP\/1\.[01] (\d{3})/;

/** What an agent's status means when its body does not say. */
const codesByStatus: Readonly<Record<number, ErrorCode>> = {
  400: "invalid_request",
  404: "sandbox_not_found",
  409: "sandbox_state_conflict",
  502: "port_closed",
};

/**
 * Opens a tunnel; the socket that the callback gets carries the sandbox's bytes from the first on.
 * Its errors are WrennErrors: what the agent answered, or `host_unavailable`.
 */
export function openTunnel(target: TunnelTarget, callback: OnTunnel): void {
  const socket = net.connect(socketOptions(parseHostAddress(target.hostAddress)));
  let received: Buffer = Buffer.alloc(0);

  const timer = setTimeout(() => {
    fail(new WrennError("host_unavailable", { message: "The host agent did not open a connection in time." }));
  }, deadlines.tunnelOpen);

  const finish = (): void => {
    clearTimeout(timer);
    socket.off("data", onData).off("error", onError).off("close", onClose);
  };
  const fail = (error: WrennError): void => {
    finish();
    socket.on("error", () => undefined).destroy();
    callback(error, null);
  };
  const onError = (error: Error): void => {
    fail(new WrennError("host_unavailable", { cause: error }));
  };
  const onClose = (): void => {
    fail(refusalFrom(received));
  };
  const onData = (chunk: Buffer): void => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    const end = received.indexOf(endOfHead);
    if (received.length > maxAnswerBytes) return onClose();
    if (end === -1) return;
    // A refusal is complete with the length it announces, or else when the connection ends.
    if (statusOf(received) !== 200) {
      const length = contentLength.exec(received.toString("latin1", 0, end + 2))?.[1];
      if (length !== undefined && received.length >= end + endOfHead.length + Number(length)) onClose();
      return;
    }
    finish();
    socket.pause();
    const rest = received.subarray(end + endOfHead.length);
    if (rest.length > 0) socket.unshift(rest);
    callback(null, socket);
  };
  socket.on("data", onData).on("error", onError).on("close", onClose);
  const authority = `${target.sandboxId}:${target.port}`;
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
}

function statusOf(answer: Buffer): number | null {
  const status = statusLine.exec(answer.toString("latin1", 0, 12))?.[1];
  return status === undefined ? null : Number(status);
}

function refusalFrom(answer: Buffer): WrennError {
  const status = statusOf(answer);
  const end = answer.indexOf(endOfHead);
  const body = errorBodySchema.safeParse(parsedJson(answer.subarray(end + endOfHead.length)));
  const code = body.data?.error.code ?? "";
  if (body.success && isErrorCode(code)) {
    const { message, suggestion, details } = body.data.error;
    return new WrennError(code, {
      message,
      ...(suggestion === undefined ? {} : { suggestion }),
      ...(details === undefined ? {} : { details }),
    });
  }
  const byStatus = codesByStatus[status ?? 0] ?? "host_unavailable";
  return new WrennError(byStatus, {
    message: body.data?.error.message ?? errorRegistry[byStatus].message,
    cause: new Error(`The host agent answered CONNECT with ${status ?? "nothing"}.`),
  });
}

function parsedJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}
