import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test, vi } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { Heartbeat } from "./heartbeat.ts";

const timing = { pingMs: 40, pongMs: 160 };
const servers: WebSocketServer[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) {
    for (const client of server.clients) client.terminate();
    server.close();
  }
});

interface Pair {
  readonly client: WebSocket;
  readonly served: WebSocket;
  readonly heartbeat: Heartbeat;
  readonly gone: Promise<void>;
  /** As a stream sends output. */
  readonly send: (bytes: Buffer) => void;
  /** Resolves when the client has been asked so often, which is how long that takes. */
  readonly asked: (times: number) => Promise<void>;
}

async function connect(options: { autoPong: boolean }): Promise<Pair> {
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
  servers.push(server);
  await once(server, "listening");
  const accepted = once(server, "connection");
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, options);
  const opened = once(client, "open");
  const [served] = (await accepted) as [WebSocket];
  await opened;
  client.on("error", () => undefined);
  let sentBytes = 0;
  let tell = (): void => undefined;
  const gone = new Promise<void>((resolve) => {
    tell = resolve;
  });
  const heartbeat = new Heartbeat(served, timing, () => sentBytes, tell);
  const pings = vi.spyOn(served, "ping");
  return {
    client,
    served,
    heartbeat,
    gone,
    send: (bytes) => {
      sentBytes += bytes.length;
      served.send(bytes);
    },
    asked: async (times) => {
      const enough = pings.mock.calls.length + times;
      await vi.waitUntil(() => pings.mock.calls.length >= enough, { timeout: 20_000 });
    },
  };
}

async function outcome(pair: Pair, times: number): Promise<string> {
  return Promise.race([pair.gone.then(() => "gone"), pair.asked(times).then(() => "there")]);
}

test("a client that answers is there, however long nothing else happens", async () => {
  expect(await outcome(await connect({ autoPong: true }), 15)).toBe("there");
});

test("a client that does not answer is given up", async () => {
  expect(await outcome(await connect({ autoPong: false }), 1_000)).toBe("gone");
});

test("a client that says something is there, although it does not answer", async () => {
  const pair = await connect({ autoPong: false });
  pair.client.on("ping", () => {
    pair.client.send("still here");
  });
  expect(await outcome(pair, 15)).toBe("there");
});

test("a client that has output left to take is there, also when it takes nothing for long", async () => {
  const pair = await connect({ autoPong: true });
  pair.client.pause();
  pair.send(Buffer.alloc(200_000));
  expect(await outcome(pair, 15)).toBe("there");
  pair.client.resume();
  await pair.heartbeat.untilTaken();
  expect(await outcome(pair, 15)).toBe("there");
});

test("a client that has taken its output, and answers no more, is given up", async () => {
  const pair = await connect({ autoPong: true });
  pair.send(Buffer.alloc(200_000));
  await pair.heartbeat.untilTaken();
  pair.client.pause();
  expect(await outcome(pair, 1_000)).toBe("gone");
});

test("who waits for a client to take its output waits until then, or until it has left", async () => {
  const pair = await connect({ autoPong: true });
  pair.client.pause();
  pair.send(Buffer.alloc(9_000_000));
  const taken = pair.heartbeat.untilTaken().then(() => "taken");
  expect(await Promise.race([taken, pair.asked(10).then(() => "waiting")])).toBe("waiting");
  pair.client.resume();
  expect(await taken).toBe("taken");
  pair.client.pause();
  pair.send(Buffer.alloc(9_000_000));
  const left = pair.heartbeat.untilTaken();
  pair.client.terminate();
  await left;
});

test("a client that is held back is there: it cannot be heard", async () => {
  const pair = await connect({ autoPong: true });
  pair.served.pause();
  expect(await outcome(pair, 15)).toBe("there");
  pair.served.resume();
  expect(await outcome(pair, 15)).toBe("there");
});
