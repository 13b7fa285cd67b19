import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer as createHttpServer, type Server } from "node:http";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { newId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it } from "vitest";
import { deferred } from "../deferred.ts";
import { exchange, openTunnel, refusal } from "../testing/guest.ts";
import { Tunnels } from "./tunnel.ts";

const id = newId("sandbox");

let directory: string;
let socketPath: string;
let agent: Server;
let tunnels: Tunnels;
let gone: AbortController;
let guestSockets: Socket[];
const guests: ReturnType<typeof createServer>[] = [];

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-tunnel-"));
  socketPath = path.join(directory, "agent.sock");
  gone = new AbortController();
  guestSockets = [];
  // One sandbox, whose guest is this machine.
  const sandboxes = { reach: () => ({ address: "127.0.0.1", gone: gone.signal }) };
  tunnels = new Tunnels(sandboxes, pino({ level: "silent" }));
  agent = createHttpServer().on("connect", tunnels.accept);
  await once(agent.listen(socketPath), "listening");
});

afterEach(async () => {
  agent.close();
  for (const socket of guestSockets) socket.destroy();
  for (const guest of guests.splice(0)) guest.close();
  await rm(directory, { recursive: true });
});

/** A server in the guest that does not care that its client has ended its direction; returns how to reach it. */
async function serve(handle: (socket: Socket) => void): Promise<string> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    guestSockets.push(socket);
    socket.on("error", () => undefined);
    socket.resume();
    handle(socket);
  });
  guests.push(server);
  await once(server.listen(0, "127.0.0.1"), "listening");
  return `${id}:${(server.address() as AddressInfo).port}`;
}

/** How many sides of tunnels stay open. */
async function leftOpen(): Promise<number> {
  const clients = promisify(agent.getConnections.bind(agent));
  const open = async (): Promise<number> => tunnels.open + (await clients());
  await pollUntil(async () => ((await open()) === 0 ? true : null), { timeoutMs: 2_000 });
  return open();
}

it.each([
  { guest: "stays silent", handle: () => undefined },
  {
    guest: "goes on sending",
    handle: (socket: Socket): void => {
      const timer = setInterval(() => socket.write("more"), 10);
      socket.once("close", () => clearInterval(timer));
    },
  },
])("ends with a client that is gone, though its guest $guest", async ({ handle }) => {
  const target = await serve(handle);
  for (let attempt = 0; attempt < 5; attempt++) {
    const { socket } = await openTunnel(socketPath, target);
    socket.write("a request");
    socket.resume();
    await once(guestSockets[attempt] ?? agent, "data");
    socket.destroy();
  }
  await expect(leftOpen()).resolves.toBe(0);
});

it("gives the guest all that a client sent before it went", async () => {
  let received = 0;
  const end = deferred<void>();
  const target = await serve((socket) => {
    socket.on("data", (chunk) => (received += chunk.length));
    socket.once("end", () => end.resolve());
  });
  const { socket } = await openTunnel(socketPath, target);
  socket.end(Buffer.alloc(3_000_000), () => socket.destroy());
  await end.promise;
  expect(received).toBe(3_000_000);
  await expect(leftOpen()).resolves.toBe(0);
});

it("gives a client that has ended its direction the whole answer, also a late one", async () => {
  const target = await serve((socket) => {
    socket.once("end", () => setTimeout(() => socket.end("the answer"), 200));
  });
  await expect(exchange(socketPath, target, "a request")).resolves.toBe("the answer");
  await expect(leftOpen()).resolves.toBe(0);
});

it("is cut on both sides when the sandbox ends", async () => {
  const target = await serve(() => undefined);
  const { socket } = await openTunnel(socketPath, target);
  const closed = once(socket.resume(), "close");
  gone.abort();
  await closed;
  await expect(leftOpen()).resolves.toBe(0);
});

it("keeps nothing of a guest that is cut in the moment in which its client ends", async () => {
  const target = await serve(() => undefined);
  // After the end has been passed on, and before the kernel has been told.
  agent.on("connect", (_request, client) => client.once("end", () => queueMicrotask(() => gone.abort())));
  const { socket } = await openTunnel(socketPath, target);
  socket.resume().end();
  await once(socket, "close");
  await expect(leftOpen()).resolves.toBe(0);
});

it("is refused with the reason, and is not kept for a client that neither reads nor ends", async () => {
  await expect(refusal(socketPath, "nobody:80")).resolves.toEqual({ status: 400, code: "invalid_id" });
  const { status, socket } = await openTunnel(socketPath, "nobody:80");
  expect(status).toBe(400);
  await expect(leftOpen()).resolves.toBe(0);
  socket.destroy();
});
