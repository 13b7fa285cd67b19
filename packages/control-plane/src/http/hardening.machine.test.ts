/** What the listener does with clients that are slow, many, broken or hostile, at raw sockets. */
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { errorOf, RawConnection } from "../testing/raw-connection.ts";
import type { RawReply } from "../testing/raw-connection.ts";
import { eventually, gate, TestServer } from "../testing/test-server.ts";

let server: TestServer;
/** Of replicas of the same server. One is in no hurry, one gives heads and bodies little time, one has room for few. */
let patient: string;
let hasty: string;
let small: string;

const maxConnections = 5;

beforeAll(async () => {
  server = await TestServer.start();
  patient = server.url;
  hasty = (await server.startReplica({ bounds: { requestHeadMs: 600, requestBodyMs: 600 } })).url;
  small = (await server.startReplica({ bounds: { maxConnections } })).url;
});
afterAll(async () => server.stop());

/** A head with the server's key; the lines are added to it. */
function head(requestLine: string, ...lines: string[]): string {
  return [`${requestLine} HTTP/1.1`, "Host: test", `X-API-Key: ${server.key}`, ...lines, "", ""].join("\r\n");
}

function postOf(body: string | Buffer, ...lines: string[]): Buffer {
  const length = `Content-Length: ${Buffer.byteLength(body)}`;
  return Buffer.concat([
    Buffer.from(head("POST /v1/sandboxes", "Content-Type: application/json", length, ...lines)),
    Buffer.from(body),
  ]);
}

/** The one answer to bytes on a connection of their own, which the server then closes. */
async function onlyReplyTo(bytes: string | Buffer, url = patient): Promise<RawReply> {
  const connection = await RawConnection.open(url);
  const replies = await connection.send(bytes).untilClosed();
  connection.close();
  expect(replies).toHaveLength(1);
  const [reply] = replies;
  if (reply === undefined) throw new Error("no answer");
  return reply;
}

async function replyTo(bytes: string | Buffer, url = patient): Promise<RawReply> {
  const connection = await RawConnection.open(url);
  const [reply] = await connection.send(bytes).untilReplies(1);
  connection.close();
  if (reply === undefined) throw new Error("no answer");
  return reply;
}

async function statusOf(url: string): Promise<number> {
  return (await fetch(`${url}/health/live`)).status;
}

test("heads that trickle in are ended by their deadline, while others are served", async () => {
  const slow = await Promise.all(Array.from({ length: 50 }, async () => RawConnection.open(hasty)));
  // Some say nothing at all.
  for (const connection of slow.slice(10)) connection.send("GET /health HTTP/1.1\r\nHost: te");
  const trickle = setInterval(() => {
    for (const connection of slow.slice(10)) if (connection.socket.writable) connection.send("s");
  }, 20);
  const served: number[] = [];
  await Promise.all([
    ...slow.map(async (connection) => connection.untilClosed()),
    (async () => {
      while (slow.some(({ socket }) => !socket.closed && !socket.readableEnded)) served.push(await statusOf(hasty));
    })(),
  ]);
  clearInterval(trickle);
  for (const { replies } of slow) expect(replies.map(errorOf)).toEqual([[408, "request_timeout"]]);
  expect(served.length).toBeGreaterThan(0);
  expect(new Set(served)).toEqual(new Set([200]));
  for (const connection of slow) connection.close();
});

test("bodies that trickle in are ended by their deadline, also behind an answer that did not wait for them", async () => {
  const length = "Content-Length: 1000";
  const json = "Content-Type: application/json";
  const waiting = await RawConnection.open(hasty);
  waiting.send(`${head("POST /v1/sandboxes", json, length)}{`);
  const answered = await RawConnection.open(hasty);
  answered.send(`POST /v1/sandboxes HTTP/1.1\r\nHost: test\r\n${json}\r\n${length}\r\n\r\n{`);
  expect((await answered.untilReplies(1)).map(errorOf)).toEqual([[401, "unauthorized"]]);
  const trickle = setInterval(() => {
    for (const { socket } of [waiting, answered]) if (socket.writable) socket.write(" ");
  }, 20);
  expect((await waiting.untilClosed()).map(errorOf)).toEqual([[408, "request_timeout"]]);
  expect(await answered.untilClosed()).toHaveLength(1);
  clearInterval(trickle);
  expect(await statusOf(hasty)).toBe(200);
  for (const connection of [waiting, answered]) connection.close();
});

test("a head and a body beyond their size are refused", async () => {
  const large = `X-Large: ${"x".repeat(40_000)}`;
  expect(errorOf(await onlyReplyTo(head("GET /health", large)))).toEqual([431, "headers_too_large"]);
  const many = Array.from({ length: 5_000 }, (_, index) => `X-${index}: 1`);
  expect(errorOf(await onlyReplyTo(head("GET /health", ...many)))).toEqual([431, "headers_too_large"]);
  expect(errorOf(await onlyReplyTo(head(`GET /${"a".repeat(40_000)}`)))).toEqual([431, "headers_too_large"]);
  const json = "Content-Type: application/json";
  const announced = head("POST /v1/sandboxes", json, "Content-Length: 9000000000");
  expect(errorOf(await replyTo(announced))).toEqual([413, "body_too_large"]);
  const chunk = `10000\r\n${" ".repeat(65_536)}\r\n`;
  const chunked = head("POST /v1/sandboxes", json, "Transfer-Encoding: chunked") + chunk.repeat(17);
  expect(errorOf(await replyTo(chunked))).toEqual([413, "body_too_large"]);
});

test("connections beyond their number are closed, those there are go on, and there is room again when one leaves", async () => {
  const full = await Promise.all(Array.from({ length: maxConnections }, async () => RawConnection.open(small)));
  for (const connection of full) connection.send(head("GET /health/live"));
  for (const connection of full) await connection.untilReplies(1);
  const beyond = await RawConnection.open(small);
  expect(await beyond.send(head("GET /health/live")).untilClosed()).toEqual([]);
  for (const connection of full) connection.send(head("GET /health/live"));
  for (const connection of full)
    expect((await connection.untilReplies(2)).map(({ status }) => status)).toEqual([200, 200]);
  full.pop()?.close();
  await eventually(async () => expect(await statusOf(small)).toBe(200));
  for (const connection of [beyond, ...full]) connection.close();
});

test("a compressed body is refused before a byte of it is looked at", async () => {
  const bomb = gzipSync(JSON.stringify({ envs: { A: "0".repeat(50_000_000) } }));
  for (const encoding of ["gzip", "deflate", "br", "gzip, gzip", "x"]) {
    const reply = await replyTo(postOf(bomb, `Content-Encoding: ${encoding}`));
    expect(errorOf(reply)).toEqual([415, "unsupported_media_type"]);
  }
  expect((await replyTo(postOf("{}", "Content-Encoding: identity"))).status).toBe(201);
});

test.each([
  ["a length and chunks", "Content-Length: 6\r\nTransfer-Encoding: chunked"],
  ["chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 6"],
  ["two lengths", "Content-Length: 6\r\nContent-Length: 5"],
  ["a list of lengths", "Content-Length: 6, 5"],
  ["a length with a sign", "Content-Length: +6"],
  ["chunks that are not last", "Transfer-Encoding: chunked, identity"],
  ["an unknown coding", "Transfer-Encoding: xchunked"],
  ["a space before the colon", "Transfer-Encoding : chunked"],
  ["a folded line", "Transfer-Encoding:\r\n chunked\r\nContent-Length: 6"],
])("a request with %s is refused, and what hides behind it is never one", async (_what, lines) => {
  const smuggled = head("GET /health/live");
  const bytes = head("POST /v1/sandboxes", "Content-Type: application/json", lines) + `0\r\n\r\nX${smuggled}`;
  const before = server.agent.creates.length;
  const reply = await onlyReplyTo(bytes);
  expect(reply.status).toBeGreaterThanOrEqual(400);
  expect(reply.status).toBeLessThan(500);
  errorOf(reply);
  expect(server.agent.creates).toHaveLength(before);
});

test("garbage behind a request is refused after the request was answered", async () => {
  const connection = await RawConnection.open(patient);
  const asked = gate();
  const held = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  connection.send(Buffer.concat([postOf("{}"), Buffer.from("\u0001garbage\r\n\r\n")]));
  await asked.opened;
  connection.send("more\r\n\r\n".repeat(1_000));
  held.open();
  const [created, refused, ...more] = await connection.untilClosed();
  server.agent.beforeCreate = async () => undefined;
  expect(created?.status).toBe(201);
  expect(refused === undefined ? null : errorOf(refused)).toEqual([400, "invalid_request"]);
  expect(more).toEqual([]);
  connection.close();
});

test("requests sent without waiting are answered in their order", async () => {
  const connection = await RawConnection.open(patient);
  connection.send(head("GET /v1/sandboxes/sb-1") + head("GET /health/live") + head("GET /nothing").repeat(20));
  const replies = await connection.untilReplies(22);
  expect(replies.map(({ status }) => status)).toEqual([400, 200, ...Array.from({ length: 20 }, () => 404)]);
  connection.close();
});

test("a client that refuses to go after it was refused is made to", async () => {
  const connection = await RawConnection.open(patient);
  await connection.send("garbage\r\n\r\n").untilReplies(1);
  const trickle = setInterval(() => connection.socket.writable && connection.send("more"), 20);
  await eventually(() => expect(connection.socket.closed).toBe(true));
  clearInterval(trickle);
});

test.each([
  ["noise", "\u0016\u0003\u0001 hello\r\n\r\n"],
  ["an unknown method", "BREW /coffee HTTP/1.1\r\nHost: test\r\n\r\n"],
  ["a method in lower case", "get / HTTP/1.1\r\nHost: test\r\n\r\n"],
  ["another version of HTTP", "GET / HTTP/3.0\r\nHost: test\r\n\r\n"],
  ["HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  ["a header that is none", "GET / HTTP/1.1\r\nHost: test\r\nno colon\r\n\r\n"],
  ["a NUL in a header", "GET / HTTP/1.1\r\nHost: test\r\nX: a\u0000b\r\n\r\n"],
  ["a chunk whose size is no number", "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
])("%s is refused in the API's shape", async (_what, bytes) => {
  expect(errorOf(await onlyReplyTo(bytes))).toEqual([400, "invalid_request"]);
});

test("a request without a Host is refused, except in HTTP/1.0", async () => {
  expect(errorOf(await replyTo("GET /health/live HTTP/1.1\r\n\r\n"))).toEqual([400, "invalid_request"]);
  expect((await replyTo("GET /health/live HTTP/1.0\r\n\r\n")).status).toBe(200);
});

test("methods that an address does not take, and targets that are no addresses", async () => {
  expect(errorOf(await replyTo(head("PROPFIND /v1/sandboxes")))).toEqual([405, "method_not_allowed"]);
  expect(errorOf(await replyTo(head("TRACE /v1/sandboxes")))).toEqual([405, "method_not_allowed"]);
  expect(errorOf(await onlyReplyTo("CONNECT example.com:443 HTTP/1.1\r\nHost: test\r\n\r\n"))).toEqual([
    405,
    "method_not_allowed",
  ]);
  expect(errorOf(await replyTo(head("OPTIONS *")))).toEqual([404, "route_not_found"]);
  expect(errorOf(await replyTo(head("GET /v1/sandboxes/%ZZ")))).toEqual([400, "invalid_request"]);
  expect(errorOf(await replyTo(head("GET /v1/../../etc/passwd")))).toEqual([404, "route_not_found"]);
  expect(errorOf(await replyTo(head("GET //v1/sandboxes")))).toEqual([404, "route_not_found"]);
});

test("a target in absolute form is its path, whatever host it names", async () => {
  const reply = await replyTo(head("GET http://elsewhere.example/health/live"));
  expect([reply.status, reply.body]).toEqual([200, expect.stringContaining('"ok"')]);
  expect(errorOf(await replyTo(head("GET http://elsewhere.example/nothing")))).toEqual([404, "route_not_found"]);
});

test("an expectation that nobody knows is ignored", async () => {
  expect((await replyTo(head("GET /health/live", "Expect: a miracle"))).status).toBe(200);
});

test.each([
  ["malformed JSON", "{", "application/json", [400, "malformed_json"]],
  ["half of it", '{"vcpus":', "application/json", [400, "malformed_json"]],
  ["nothing", "", "application/json", [400, "malformed_json"]],
  ["a prototype", '{"__proto__":{"vcpus":1}}', "application/json", [400, "malformed_json"]],
  ["a deep nest", "[".repeat(500_000) + "]".repeat(500_000), "application/json", [400, "invalid_request"]],
  ["another type", "<a/>", "application/xml", [415, "unsupported_media_type"]],
  ["a type that is none", "{}", "nonsense", [415, "unsupported_media_type"]],
  ["a form", "vcpus=1", "application/x-www-form-urlencoded", [415, "unsupported_media_type"]],
] as const)("a body of %s is refused", async (_what, body, type, refusal) => {
  const request = `${head("POST /v1/sandboxes", `Content-Type: ${type}`, `Content-Length: ${body.length}`)}${body}`;
  expect(errorOf(await replyTo(request))).toEqual(refusal);
});

test("clients that leave in the middle of a head or a body harm nothing", async () => {
  for (const bytes of [
    "",
    "CONNECT example.com:443 HTTP/1.1\r\nHost: test\r\n\r\n",
    "GE",
    head("GET /health").slice(0, -2),
    `${head("POST /v1/sandboxes", "Content-Length: 9")}{`,
  ]) {
    const connection = await RawConnection.open(patient);
    connection.send(bytes).close();
    const reset = await RawConnection.open(patient);
    reset.send(bytes).socket.resetAndDestroy();
  }
  expect(await statusOf(patient)).toBe(200);
});
