/** For tests: what a user does in a sandbox, through the host agent's tunnels. */
import { request, type RequestOptions } from "node:http";
import type { Socket } from "node:net";
import { guestAgentPort } from "@wrenn/contract";
import { testToken } from "./host-agent-process.ts";

/** The head of the answer to a CONNECT, and the socket behind it. */
export async function openTunnel(socketPath: string, target: string): Promise<{ status: number; socket: Socket }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method: "CONNECT", path: target });
    outgoing.once("connect", (response, socket: Socket, head) => {
      if (head.length > 0) socket.unshift(head);
      resolve({ status: response.statusCode ?? 0, socket });
    });
    outgoing.once("error", reject);
    outgoing.end();
  });
}

/** All that comes out of a socket until its end. */
export async function readAll(socket: Socket): Promise<string> {
  let text = "";
  socket.setEncoding("utf8");
  for await (const chunk of socket as AsyncIterable<string>) text += chunk;
  return text;
}

/** Sends bytes through a tunnel, ends its own direction, and returns what came back. */
export async function exchange(socketPath: string, target: string, bytes: string): Promise<string> {
  const { status, socket } = await openTunnel(socketPath, target);
  if (status !== 200) throw new Error(`the tunnel was refused with ${status}: ${await readAll(socket)}`);
  socket.end(bytes);
  return readAll(socket);
}

/** What a refused tunnel says. */
export async function refusal(socketPath: string, target: string): Promise<{ status: number; code: string }> {
  const { status, socket } = await openTunnel(socketPath, target);
  const { error } = JSON.parse(await readAll(socket)) as { error: { code: string } };
  return { status, code: error.code };
}

interface ExecEvent {
  event?: { data?: { stdout?: string }; end?: { exitCode?: number; status?: string } };
}

/** Runs a shell command as root in the sandbox; resolves with its standard output when it ends, or the connection does. */
export async function execute(socketPath: string, id: string, command: string): Promise<string> {
  const { status, socket } = await openTunnel(socketPath, `${id}:${guestAgentPort}`);
  if (status !== 200) {
    socket.destroy();
    throw new Error(`the tunnel was refused with ${status}`);
  }
  return executeOver({ createConnection: () => socket }, command);
}

/** The same in a guest that no host agent looks after, by the address of its slot. */
export async function executeAt(address: string, command: string): Promise<string> {
  return executeOver({ host: address, port: guestAgentPort }, command);
}

async function executeOver(connection: RequestOptions, command: string): Promise<string> {
  const message = JSON.stringify({ process: { cmd: "/bin/sh", args: ["-c", command], envs: {}, cwd: "/" } });
  const body = envelope(message);
  return new Promise((resolve, reject) => {
    const headers = {
      "content-type": "application/connect+json",
      "connect-protocol-version": "1",
      "x-access-token": testToken,
      authorization: `Basic ${Buffer.from("root:").toString("base64")}`,
      "content-length": body.length,
      connection: "close",
    };
    const options = { method: "POST", path: "/process.Process/Start", headers, ...connection };
    const outgoing = request(options, (response) => {
      const chunks: Buffer[] = [];
      const finish = (): void => {
        outgoing.destroy();
        resolve(standardOutput(Buffer.concat(chunks)));
      };
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("end", finish);
      response.once("error", finish);
    });
    outgoing.once("error", reject);
    outgoing.end(body);
  });
}

/** Connect's framing: a flag byte, a length, the message. */
function envelope(message: string): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(Buffer.byteLength(message), 1);
  return Buffer.concat([head, Buffer.from(message)]);
}

function standardOutput(stream: Buffer): string {
  let text = "";
  for (let at = 0; at + 5 <= stream.length;) {
    const length = stream.readUInt32BE(at + 1);
    const { event } = JSON.parse(stream.toString("utf8", at + 5, at + 5 + length)) as ExecEvent;
    text += Buffer.from(event?.data?.stdout ?? "", "base64").toString("utf8");
    at += 5 + length;
  }
  return text;
}
