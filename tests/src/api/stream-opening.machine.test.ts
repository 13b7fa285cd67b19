import { once } from "node:events";
import http from "node:http";
import { errorBodySchema } from "@wrenn/contract";
import { afterEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { useApiServer } from "../harness/api-server.ts";
import { StreamClient } from "../harness/stream-client.ts";
import type { OpenOptions } from "../harness/stream-client.ts";

const api = useApiServer();
const clients: StreamClient[] = [];

afterEach(() => {
  for (const client of clients.splice(0)) client.webSocket.terminate();
});

function address(id = api().sandbox.id): string {
  return `/v1/sandboxes/${id}/exec/stream`;
}

async function open(options: OpenOptions = {}, target = address()): Promise<StreamClient> {
  const client = await StreamClient.open(api().server, target, options);
  clients.push(client);
  return client;
}

/** What comes of running something: whoever may do that has been let in. */
async function outcomeOf(client: StreamClient): Promise<string | undefined> {
  client.say({ type: "start", cmd: "true" });
  return (await client.closed()).last?.type;
}

interface Refusal {
  status: number | undefined;
  code: string;
  headers: http.IncomingHttpHeaders;
}

/** A request that is answered as one of plain HTTP. */
async function refusal(target: string, headers: http.OutgoingHttpHeaders, method = "GET"): Promise<Refusal> {
  const request = http.request(`${api().server.url}${target}`, { method, headers });
  request.end();
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  const { error } = errorBodySchema.parse(JSON.parse(text));
  expect(error.request_id).toBe(response.headers["x-request-id"]);
  return { status: response.statusCode, code: error.code, headers: response.headers };
}

/** An upgrade that is refused before it happens. */
async function upgradeRefusal(target: string, headers: http.OutgoingHttpHeaders = {}): Promise<unknown> {
  const handshake = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
  };
  const { status, code } = await refusal(target, { ...handshake, "X-API-Key": api().server.key, ...headers });
  return [status, code];
}

test("a key in either header, or in the first message, lets a client in", async () => {
  const { key } = api().server;
  expect(await outcomeOf(await open())).toBe("exit");
  expect(await outcomeOf(await open({ key: null, headers: { Authorization: `Bearer ${key}` } }))).toBe("exit");
  const client = await open({ key: null });
  client.say({ type: "authenticate", api_key: key });
  expect(await outcomeOf(client)).toBe("exit");
});

test("a client that follows a process needs to say nothing but its key", async () => {
  const { server, sandbox } = api();
  const started = await server.post(`/v1/sandboxes/${sandbox.id}/processes`, { cmd: "cat", stdin: true });
  const { pid } = started.body as unknown as { pid: number };
  const client = await open({ key: null }, `/v1/sandboxes/${sandbox.id}/processes/${pid}/stream`);
  client.say({ type: "authenticate", api_key: server.key });
  await client.started();
  client.say({ type: "close_stdin" });
  expect((await client.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
});

test.each([
  ["no key", { type: "start", cmd: "true" }],
  ["an unknown key", { type: "authenticate", api_key: `wrn_${"0".repeat(40)}` }],
  ["what is no key", { type: "authenticate", api_key: "secret" }],
  ["a key of another shape", { type: "authenticate", api_key: 5 }],
])("a first message with %s lets nobody in", async (_what, message) => {
  const client = await open({ key: null });
  client.say(message);
  expect(await client.failure()).toEqual([1008, "unauthorized"]);
});

test("a key of another team finds no sandbox", async () => {
  const stranger = await api().server.makeKey("strangers who stream");
  const client = await open({ key: null });
  client.say({ type: "authenticate", api_key: stranger });
  client.say({ type: "start", cmd: "true" });
  expect(await client.failure()).toEqual([1008, "sandbox_not_found"]);
  expect(await upgradeRefusal(address(), { "X-API-Key": stranger })).toEqual([404, "sandbox_not_found"]);
});

test("who does not say in time who it is, or what it wants, is sent away", async () => {
  const replica = await api().server.startReplica({
    bounds: { streams: { openingMs: 300, pingMs: 30_000, pongMs: 20_000 } },
  });
  const { url } = replica;
  const silent = await open({ key: null, url });
  expect(await silent.failure()).toEqual([1008, "request_timeout"]);
  const undecided = await open({ key: null, url });
  undecided.say({ type: "authenticate", api_key: api().server.key });
  expect(await undecided.failure()).toEqual([1008, "request_timeout"]);
  // What has been said in time may take as long as it takes.
  const timely = await open({ url });
  timely.say({ type: "start", cmd: "sleep", args: ["0.6"] });
  expect((await timely.closed()).last).toMatchObject({ type: "exit", exit_code: 0 });
});

test("pages of the server's own origin, and of those that are listed, are let in", async () => {
  expect(await outcomeOf(await open({ headers: { Origin: api().server.url } }))).toBe("exit");
  expect(await outcomeOf(await open({ headers: { Origin: "https://app.example.com" } }))).toBe("exit");
});

test("pages of other origins are refused before anything is upgraded", async () => {
  for (const Origin of ["https://evil.example", "http://app.example.com", "null"]) {
    expect(await upgradeRefusal(address(), { Origin })).toEqual([403, "origin_not_allowed"]);
  }
});

test.each([
  ["an unknown key", () => address(), { "X-API-Key": `wrn_${"0".repeat(40)}` }, 401, "unauthorized"],
  ["no id of a sandbox", () => address("usr-1"), {}, 400, "invalid_id"],
  [
    "a sandbox that there is not",
    () => address("sb-01900000-0000-7000-8000-000000000000"),
    {},
    404,
    "sandbox_not_found",
  ],
  [
    "no pid",
    () => "/v1/sandboxes/sb-01900000-0000-7000-8000-000000000000/processes/x/stream",
    {},
    400,
    "invalid_request",
  ],
  [
    "a query that there is not",
    () => `/v1/sandboxes/${api().sandbox.id}/processes/1/stream?replay=maybe`,
    {},
    400,
    "invalid_request",
  ],
  ["a handshake without a key", () => address(), { "Sec-WebSocket-Key": "" }, 400, "invalid_request"],
  ["a handshake of another version", () => address(), { "Sec-WebSocket-Version": "99" }, 400, "invalid_request"],
  ["an address that there is not", () => "/v1/sandboxes/sb-1/exec/streams", {}, 404, "route_not_found"],
  ["an address that is no WebSocket's", () => "/v1/sandboxes/sb-1", {}, 400, "invalid_id"],
])("an upgrade with %s is answered as any request", async (_what, target, headers, status, code) => {
  expect(await upgradeRefusal(target(), headers)).toEqual([status, code]);
});

test("a sandbox that does not run is refused before anything is upgraded", async () => {
  const { server } = api();
  const other = await server.create();
  await server.call("DELETE", `/v1/sandboxes/${other.id}`);
  expect(await upgradeRefusal(address(other.id))).toEqual([409, "sandbox_state_conflict"]);
});

test("a plain request is told that a WebSocket is needed", async () => {
  const base = `/v1/sandboxes/${api().sandbox.id}`;
  for (const path of ["/exec/stream", "/pty", "/processes/1/stream", "/processes/1/stream?replay=false"]) {
    const { status, code, headers } = await refusal(`${base}${path}`, {});
    expect([status, code, headers.upgrade]).toEqual([426, "upgrade_required", "websocket"]);
  }
  expect(await refusal(`${base}/pty`, {}, "POST")).toMatchObject({ status: 405, code: "method_not_allowed" });
  expect(await refusal(`${base}/exec/streams`, {})).toMatchObject({ status: 404, code: "route_not_found" });
});

test("no compression is agreed to", async () => {
  const webSocket = new WebSocket(`${api().server.url.replace("http", "ws")}${address()}`, {
    headers: { "X-API-Key": api().server.key },
    perMessageDeflate: true,
  });
  await once(webSocket, "open");
  expect(webSocket.extensions).toBe("");
  webSocket.terminate();
});

test("what is no WebSocket message ends the connection", async () => {
  const client = await open();
  client.say({ type: "start", cmd: "sleep", args: ["1000"] });
  const pid = await client.started();
  // A text message that is not UTF-8.
  client.webSocket.send(Buffer.of(0xff, 0xfe), { binary: false });
  expect((await client.closed()).code).toBe(1007);
  await expect
    .poll(async () => (await api().guest.process().list({})).processes.some((process) => process.pid === pid))
    .toBe(false);
});
