import { randomBytes } from "node:crypto";
import { once } from "node:events";
import http from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { answerTo, RawClient } from "../testing/raw-client.ts";
import { eventually, TestServer } from "../testing/test-server.ts";

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

test("a WebSocket carries text and bytes both ways and closes on both sides", async () => {
  const socket = new WebSocket(`${server.url.replace("http", "ws")}/websocket`, {
    headers: { "Wrenn-Sandbox-Id": sandbox.id, "Wrenn-Sandbox-Port": "8080", "X-API-Key": server.key },
  });
  await once(socket, "open");
  const big = randomBytes(3_000_000);
  for (const message of ["hello", big]) {
    socket.send(message);
    const [data] = (await once(socket, "message")) as [Buffer];
    expect(Buffer.compare(data, Buffer.from(message))).toBe(0);
  }
  expect(Object.keys(server.agent.guest.seen[0]?.headers ?? {}).filter((name) => /wrenn|key|token/.test(name))).toEqual(
    ["sec-websocket-key"],
  );
  socket.close();
  await once(socket, "close");
  await eventually(() => expect(server.agent.guest.abandoned).toContain("/websocket"));
});

test("an upgrade that the guest or Wrenn refuses is answered as a request", async () => {
  const upgrade = { Connection: "Upgrade", Upgrade: "websocket" };
  const { response, text } = await client.send("/elsewhere", { headers: upgrade });
  expect([response.statusCode, await text()]).toEqual([426, "no ws"]);
  const unknown = { ...upgrade, "X-API-Key": `wrn_${"1".repeat(40)}` };
  expect(await client.refusal("/websocket", { headers: unknown })).toEqual([401, "unauthorized"]);
  const internal = { ...upgrade, Upgrade: "wrenn-tunnel" };
  expect(await client.refusal("/any", { headers: internal })).toEqual([404, "route_not_found"]);
});

test("an upgrade that may be ignored is", async () => {
  const headers = { Connection: "Upgrade, HTTP2-Settings", Upgrade: "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__" };
  const { response, text } = await client.send("/plain", { method: "POST", headers, body: "body" });
  expect([response.statusCode, JSON.parse(await text())]).toEqual([200, { path: "/plain" }]);
  const health = http.request(`${server.url}/health`, { headers });
  health.end();
  expect((await answerTo(health)).response.statusCode).toBe(200);
});
