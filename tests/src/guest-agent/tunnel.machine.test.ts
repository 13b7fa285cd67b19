import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGuestAgent, type GuestAgent } from "./harness.ts";

let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
});
afterAll(() => agent.stop());

/** The upgraded socket, or the refusal. A plain socket, because HTTP clients close both directions at once. */
async function tunnel(port: number | string): Promise<Socket | { status: number; body: unknown }> {
  const socket = connect({ port: agent.port, host: "127.0.0.1", allowHalfOpen: true });
  const head = [`GET /tunnel?port=${port} HTTP/1.1`, "Host: guest", "Connection: Upgrade", "Upgrade: wrenn-tunnel"];
  socket.write([...head, "", ""].join("\r\n"));
  let received = Buffer.alloc(0);
  while (!received.includes("\r\n\r\n")) {
    const [chunk] = await once(socket, "data");
    received = Buffer.concat([received, chunk]);
  }
  socket.pause();
  const end = received.indexOf("\r\n\r\n") + 4;
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(received.toString("latin1"))?.[1]);
  if (status !== 101) {
    socket.destroy();
    return { status, body: JSON.parse(received.subarray(end).toString()) };
  }
  if (end < received.length) socket.unshift(received.subarray(end));
  return socket;
}

async function opened(port: number): Promise<Socket> {
  const socket = await tunnel(port);
  if ("status" in socket) throw new Error(`the tunnel was refused: ${socket.status}`);
  return socket;
}

async function serve(host: string, serveOne: (socket: Socket) => void): Promise<{ server: Server; port: number }> {
  const server = createServer({ allowHalfOpen: true }, serveOne).listen(0, host);
  await once(server, "listening");
  return { server, port: (server.address() as AddressInfo).port };
}

describe.each(["127.0.0.1", "::1"])("a tunnel to a service on %s", (host) => {
  test("carries bytes both ways, and the end of one direction while the other goes on", async () => {
    const { server, port } = await serve(host, (socket) => {
      let received = 0;
      socket.on("data", (chunk: Buffer) => {
        received += chunk.length;
      });
      socket.on("end", () => socket.end(`got ${received}`));
    });
    const socket = await opened(port);
    const sent = Buffer.alloc(5 * 1024 * 1024, "y");
    socket.end(sent);
    expect((await buffer(socket)).toString()).toBe(`got ${sent.length}`);
    server.close();
  });

  test("carries what the service says first, and its end", async () => {
    const { server, port } = await serve(host, (socket) => socket.end("hello"));
    const socket = await opened(port);
    expect((await buffer(socket)).toString()).toBe("hello");
    socket.destroy();
    server.close();
  });
});

test("closing the tunnel closes the service's connection", async () => {
  let closed = false;
  const { server, port } = await serve("127.0.0.1", (socket) => {
    socket.on("error", () => {});
    socket.on("close", () => {
      closed = true;
    });
    socket.on("end", () => socket.end());
    socket.resume();
  });
  (await opened(port)).destroy();
  await expect.poll(() => closed).toBe(true);
  server.close();
});

test("a port nobody listens on is a 502", async () => {
  const { server, port } = await serve("127.0.0.1", () => {});
  server.close();
  await once(server, "close");
  expect(await tunnel(port)).toMatchObject({
    status: 502,
    body: { code: 502, message: expect.stringContaining(`port ${port} is not open`) },
  });
});

test.each(["0", "65536", "x", ""])("'%s' is not a port", async (port) => {
  expect(await tunnel(port)).toMatchObject({ status: 400, body: { code: 400 } });
});

test("a tunnel needs no token", async () => {
  const { server, port } = await serve("127.0.0.1", (socket) => socket.end("open"));
  await agent.fetch("/init", { method: "POST", body: JSON.stringify({ accessToken: "t" }) });
  const socket = await opened(port);
  expect((await buffer(socket)).toString()).toBe("open");
  socket.destroy();
  server.close();
});
