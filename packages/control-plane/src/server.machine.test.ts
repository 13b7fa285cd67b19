/** How the listener starts and stops: what is answered meanwhile, and what becomes of requests under way. */
import { once } from "node:events";
import path from "node:path";
import pg from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import type { ControlPlane } from "./control-plane.ts";
import { advisoryLocks } from "./store/advisory-lock.ts";
import { errorOf, RawConnection } from "./testing/raw-connection.ts";
import { freePort } from "./testing/free-port.ts";
import { eventually, TestServer } from "./testing/test-server.ts";

/** Longer than any test may take: what ends in time has not been cut. */
const longMs = 600_000;
const megabyte = 1_048_576;

let server: TestServer;
let sandboxId: string;

beforeEach(async () => {
  server = await TestServer.start();
  sandboxId = (await server.create()).id;
});
afterEach(async () => server.stop());

function dataPlaneHead(target: string): string {
  return `GET ${target} HTTP/1.1\r\nHost: test\r\nWrenn-Sandbox-Id: ${sandboxId}\r\nX-API-Key: ${server.key}\r\n\r\n`;
}

/** A download whose client has read its head and then nothing more. */
async function heldDownload({ url }: ControlPlane, bytes: number): Promise<RawConnection> {
  const connection = await RawConnection.open(url);
  connection.send(dataPlaneHead(`/download?bytes=${bytes}`));
  await once(connection.socket, "data");
  connection.socket.pause();
  return connection;
}

test("a download under way is completed, however long others idle on their connections", async () => {
  const replica = await server.startReplica({ bounds: { drainMs: longMs } });
  const idle = await Promise.all(Array.from({ length: 5 }, async () => RawConnection.open(replica.url)));
  for (const connection of idle) {
    await connection.send("GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n").untilReplies(1);
  }
  const download = await heldDownload(replica, 20 * megabyte);
  const stopped = replica.stop();
  for (const connection of idle) await connection.untilClosed();
  download.socket.resume();
  await download.untilClosed();
  const [head = ""] = download.text.split("\r\n\r\n", 1);
  expect(download.receivedBytes).toBe(head.length + 4 + 20 * megabyte);
  await stopped;
});

test("streams that do not end by themselves get a while, and are then ended", async () => {
  const replica = await server.startReplica({ bounds: { drainMs: 1_000 } });
  const download = await heldDownload(replica, 4_000 * megabyte);
  const stream = await RawConnection.open(replica.url);
  stream.send(dataPlaneHead("/stream?line"));
  await eventually(() => expect(stream.text).toContain("first"));
  const socket = new WebSocket(`${replica.url.replace("http", "ws")}/websocket`, {
    headers: { "Wrenn-Sandbox-Id": sandboxId, "X-API-Key": server.key },
  });
  await once(socket, "open");
  const closed = once(socket, "close");

  const stopped = replica.stop();
  const before = download.receivedBytes;
  socket.send("still here");
  const [echo] = (await once(socket, "message")) as [Buffer];
  expect(echo.toString()).toBe("still here");
  download.socket.resume();
  await once(download.socket, "data");
  download.socket.pause();
  expect(download.receivedBytes).toBeGreaterThan(before);

  await stopped;
  await closed;
  await stream.untilClosed();
  download.socket.resume();
  await download.untilClosed();
  expect(download.receivedBytes).toBeLessThan(4_000 * megabyte);
  await eventually(() => expect(server.agent.guest.abandoned).toContain("/stream"));
});

test("requests that come while it stops are refused, and told from those that only ask how it is", async () => {
  const replica = await server.startReplica({ bounds: { drainMs: longMs } });
  const download = await heldDownload(replica, 20 * megabyte);
  // Heads that are half there keep their connections from counting as idle.
  const paths = ["/v1/sandboxes", "/health/ready", "/health/live", "/health"] as const;
  const connections = await Promise.all(paths.map(async () => RawConnection.open(replica.url)));
  connections.forEach((connection, index) => connection.send(`GET ${paths[index]} HTTP/1.1\r\nHost: te`));
  const intoSandbox = await RawConnection.open(replica.url);
  intoSandbox.send(dataPlaneHead("/").slice(0, -2));
  // The bytes must have arrived before the stop: each connection is alive then.
  const witness = await RawConnection.open(replica.url);
  await witness.send("GET /health/live HTTP/1.1\r\nHost: test\r\n\r\n").untilReplies(1);
  const stopped = replica.stop();
  await witness.untilClosed();
  for (const connection of connections) connection.send("st\r\n\r\n");
  intoSandbox.send("\r\n");
  const [refused, ready, live, health] = await Promise.all(
    connections.map(async (connection) => {
      const [reply] = await connection.untilReplies(1);
      if (reply === undefined) throw new Error("no answer");
      return reply;
    }),
  );
  expect(refused === undefined ? null : errorOf(refused)).toEqual([503, "shutting_down"]);
  expect(refused?.headers["connection"]).toBe("close");
  expect(health === undefined ? null : errorOf(health)).toEqual([503, "shutting_down"]);
  expect((await intoSandbox.untilReplies(1)).map(errorOf)).toEqual([[503, "shutting_down"]]);
  expect([ready?.status, JSON.parse(ready?.body ?? "")]).toEqual([
    503,
    expect.objectContaining({ status: "stopping" }),
  ]);
  expect([live?.status, JSON.parse(live?.body ?? "")]).toEqual([200, expect.objectContaining({ status: "ok" })]);
  download.socket.resume();
  await download.untilClosed();
  await stopped;
});

test("a server that starts says so to whoever asks, and lets all else wait", async () => {
  const file = path.join(server.directory, "credentials.json");
  const client = new pg.Client({ connectionString: server.databaseUrl });
  await client.connect();
  // What the next replica waits for once it listens.
  await client.query("SELECT pg_advisory_lock($1::bigint)", [advisoryLocks.localCredentials]);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const starting = server.startReplica({
    config: { listen: { host: "127.0.0.1", port }, localCredentials: file },
  });
  const answer = async (target: string): Promise<[number, unknown]> => {
    const response = await fetch(`${url}${target}`);
    return [response.status, await response.json()];
  };
  await eventually(async () => {
    expect(await answer("/health/ready")).toEqual([503, expect.objectContaining({ status: "starting" })]);
  });
  expect(await answer("/health/live")).toEqual([200, expect.objectContaining({ status: "ok" })]);
  const waiting = await RawConnection.open(url);
  waiting.send("GET /health HTTP/1.1\r\nHost: test\r\n\r\n");
  expect((await answer("/health/live"))[0]).toBe(200);
  expect(waiting.text).toBe("");
  await client.end();
  await starting;
  expect((await waiting.untilReplies(1)).map(({ status }) => status)).toEqual([200]);
  expect(await answer("/health/ready")).toEqual([200, expect.objectContaining({ status: "ok" })]);
  waiting.close();
});

test("readiness fails while the server cannot do its work, liveness does not", async () => {
  const probe = async (target: string): Promise<number> => (await server.call("GET", target, { key: null })).status;
  expect([await probe("/health/ready"), await probe("/health/live")]).toEqual([200, 200]);
  await server.agent.pause();
  await eventually(async () => expect(await probe("/health/ready")).toBe(503));
  expect(await probe("/health/live")).toBe(200);
  await server.agent.resume();
  await eventually(async () => expect(await probe("/health/ready")).toBe(200));
});
