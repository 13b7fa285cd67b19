import { once } from "node:events";
import net from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { gate } from "../testing/test-server.ts";
import { TunnelAhead } from "./tunnel-ahead.ts";
import type { OnTunnel } from "./tunnel.ts";

let server: net.Server;
let accepted: Promise<net.Socket>;

beforeEach(async () => {
  server = net.createServer();
  accepted = once(server, "connection").then(([socket]) => socket as net.Socket);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});

afterEach(() => {
  server.close();
});

/** As a tunnel is opened: paused, so that nothing of it is lost. */
async function connect(): Promise<net.Socket> {
  const { port } = server.address() as net.AddressInfo;
  const socket = net.connect(port, "127.0.0.1");
  await once(socket, "connect");
  return socket.pause();
}

async function answer(socket: Promise<net.Socket>, onTunnel: OnTunnel): Promise<void> {
  onTunnel(null, await socket);
}

/** What who takes it gets: the socket, or null when another has to be opened. */
async function taken(ahead: TunnelAhead): Promise<net.Socket | null> {
  return new Promise((resolve) => {
    ahead.take(
      (_error, socket) => {
        resolve(socket);
      },
      () => {
        resolve(null);
      },
    );
  });
}

it("one that stands ready is handed over, and carries bytes", async () => {
  const socket = await connect();
  const ahead = new TunnelAhead((onTunnel) => {
    onTunnel(null, socket);
  });
  expect(await taken(ahead)).toBe(socket);
  (await accepted).end("bytes");
  let text = "";
  for await (const chunk of socket.setEncoding("utf8")) text += chunk;
  expect(text).toBe("bytes");
});

it("one that is on its way is waited for, whatever becomes of who opened it", async () => {
  const { opened, open } = gate();
  const ahead = new TunnelAhead((onTunnel) => {
    void answer(opened.then(connect), onTunnel);
  });
  const waiting = taken(ahead);
  ahead.drop();
  open();
  const socket = await waiting;
  expect(socket?.destroyed).toBe(false);
  socket?.destroy();
});

it("one that its other side has closed is not handed over", async () => {
  const socket = await connect();
  const ahead = new TunnelAhead((onTunnel) => {
    onTunnel(null, socket);
  });
  (await accepted).end();
  await once(socket, "close");
  expect(await taken(ahead)).toBeNull();
});

it("one that nobody wants any more is closed, also when it was on its way", async () => {
  const { opened, open } = gate();
  const late = opened.then(connect);
  const ahead = new TunnelAhead((onTunnel) => {
    void answer(late, onTunnel);
  });
  ahead.drop();
  open();
  expect((await late).destroyed).toBe(true);
  expect(await taken(ahead)).toBeNull();
});
