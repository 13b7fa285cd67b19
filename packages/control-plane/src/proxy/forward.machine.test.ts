import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { answerTo, RawClient } from "../testing/raw-client.ts";
import { eventually, gate, TestServer } from "../testing/test-server.ts";

let server: TestServer;
let sandbox: { id: string; uuid: string; token: string };
let client: RawClient;

beforeAll(async () => {
  server = await TestServer.start();
  sandbox = await server.create();
  client = new RawClient(server, sandbox.id);
});
afterAll(async () => server.stop());
beforeEach(() => {
  server.agent.guest.seen.length = 0;
  server.agent.guest.abandoned.length = 0;
});

test("a request reaches the guest and its answer comes back as it was", async () => {
  const { response, text } = await client.send("/path?query=1", { headers: { "X-Mine": "yes", Host: "app.example" } });
  expect(response.statusCode).toBe(200);
  expect(response.statusMessage).toBe("Fine");
  expect(response.headers["x-guest"]).toBe("one, two");
  expect(JSON.parse(await text())).toEqual({ path: "/path" });
  expect(server.agent.guest.seen).toMatchObject([
    { method: "GET", url: "/path?query=1", headers: { "x-mine": "yes", host: "app.example" } },
  ]);
});

test("uploads arrive whole and are never held in memory", async () => {
  const part = randomBytes(1_048_576);
  const parts = 96;
  const hash = createHash("sha256");
  const held = gate();
  server.agent.guest.holdUploads = held.opened;
  const received = server.agent.guest.receivedBytes;
  const request = client.start("/upload", { method: "POST" });
  const answer = answerTo(request);
  let sent = 0;
  let stalled = false;
  const sendAll = async (): Promise<void> => {
    for (; sent < parts; sent += 1) {
      hash.update(part);
      if (!request.write(part)) {
        stalled = true;
        await once(request, "drain");
      }
    }
    request.end();
  };
  const sending = sendAll();
  // While the guest reads nothing, no more is taken from the client than fits into buffers on the way.
  await eventually(() => expect(stalled).toBe(true));
  let last = -1;
  await eventually(() => {
    const progressed = sent !== last;
    last = sent;
    expect(progressed).toBe(false);
  });
  expect(sent).toBeLessThan(32);
  expect(server.agent.guest.receivedBytes).toBe(received);
  held.open();
  await sending;
  const { text } = await answer;
  expect(JSON.parse(await text())).toEqual({ bytes: parts * part.length, sha256: hash.digest("hex") });
});

test("a client that reads slowly slows the guest down", async () => {
  const total = 256 * 1_048_576;
  const before = server.agent.guest.sentBytes;
  const { response } = await client.send(`/download?bytes=${total}`);
  let last = -1;
  // The guest stops when the buffers on the way are full, long before it has sent everything.
  await eventually(() => {
    const now = server.agent.guest.sentBytes - before;
    const progressed = now !== last;
    last = now;
    expect(progressed).toBe(false);
    expect(now).toBeGreaterThan(0);
  });
  expect(last).toBeLessThan(total / 2);
  let received = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) received += chunk.length;
  expect(received).toBe(total);
});

test("the head of a stream arrives before its first byte, and what is Wrenn's cannot be forged", async () => {
  const { response } = await client.send("/stream");
  expect(response.statusCode).toBe(200);
  expect(response.headers).not.toHaveProperty("wrenn-error");
  expect(response.headers).not.toHaveProperty("x-hop");
  response.destroy();
});

test("a client that leaves a stream is gone for the guest too", async () => {
  const { response } = await client.send("/stream?line");
  const [chunk] = (await once(response, "data")) as [Buffer];
  expect(chunk.toString()).toBe("first\n");
  response.destroy();
  await eventually(() => expect(server.agent.guest.abandoned).toEqual(["/stream"]));
});

test("a client that leaves an upload is gone for the guest too", async () => {
  const request = client.start("/upload", { method: "POST" });
  request.on("error", () => undefined);
  request.write(Buffer.alloc(100_000));
  await eventually(() => expect(server.agent.guest.seen).toHaveLength(1));
  request.destroy();
  await eventually(() => expect(server.agent.guest.abandoned).toContain("/upload"));
});

test("an answer that breaks off breaks off for the client", async () => {
  const { text } = await client.send("/truncate");
  await expect(text()).rejects.toThrow("aborted");
});

test("a guest that breaks off before it answers is an error of its own", async () => {
  expect(await client.refusal("/reset", { method: "POST" })).toEqual([503, "connection_lost"]);
});

test("an answer that comes before the whole body is delivered, and the connection serves on", async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const options = { agent, method: "POST", headers: { "Wrenn-Sandbox-Id": sandbox.id, "X-API-Key": server.key } };
  const request = http.request(`${server.url}/refuse`, options);
  const answer = answerTo(request);
  request.write(Buffer.alloc(1000));
  const { response, text } = await answer;
  expect([response.statusCode, await text()]).toEqual([413, "too much"]);
  request.end(Buffer.alloc(1000));
  await once(request, "close");
  const second = http.request(`${server.url}/`, { ...options, method: "GET" });
  second.end();
  expect((await answerTo(second)).response.statusCode).toBe(200);
  agent.destroy();
});

test("connections into a sandbox are kept and used again", async () => {
  for (let count = 0; count < 5; count += 1) await (await client.send("/again")).text();
  expect(server.agent.guest.seen.slice(1).every(({ connectionAge }) => connectionAge > 0)).toBe(true);
});

test("a get on a kept connection that the guest has just closed is asked again", async () => {
  const other = await server.create();
  const headers = { "Wrenn-Sandbox-Id": other.id };
  expect((await client.send("/stale", { headers })).response.statusCode).toBe(200);
  expect((await client.send("/stale", { headers })).response.statusCode).toBe(200);
  // Once on the kept connection, where it broke off, and once on a new one.
  expect(server.agent.guest.seen.map(({ connectionAge }) => connectionAge)).toEqual([0, 1, 0]);
});

test("HEAD and answers without a body come through", async () => {
  const { response, text } = await client.send("/", { method: "HEAD" });
  expect([response.statusCode, await text()]).toEqual([200, ""]);
});

test("what is no HTTP in the middle of an answer cuts it off, and is not answered inside it", async () => {
  const { hostname, port } = new URL(server.url);
  const socket = net.connect(Number(port), hostname);
  let received = "";
  socket.setEncoding("latin1").on("data", (text: string) => (received += text));
  socket.on("error", () => undefined);
  socket.write(
    `POST /stream?line HTTP/1.1\r\nHost: x\r\nX-API-Key: ${server.key}\r\nWrenn-Sandbox-Id: ${sandbox.id}\r\n` +
      "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
  );
  await eventually(() => expect(received).toContain("first"));
  socket.write("no chunk\r\n");
  await once(socket, "close");
  expect(received).toMatch(/^HTTP\/1.1 200/);
  expect(received).not.toContain("HTTP/1.1 400");
});

test("a small body whose sender goes away is not forwarded", async () => {
  const request = client.start("/upload", { method: "POST", headers: { "Content-Length": "10" } });
  request.on("error", () => undefined);
  request.write("half");
  await once(request, "socket");
  request.destroy();
  await (await client.send("/after")).text();
  expect(server.agent.guest.seen.map(({ url }) => url)).toEqual(["/after"]);
});
