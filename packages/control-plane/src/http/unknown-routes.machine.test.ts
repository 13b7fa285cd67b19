import { METHODS } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { errorOf, RawConnection } from "../testing/raw-connection.ts";
import type { RawReply } from "../testing/raw-connection.ts";
import { TestServer } from "../testing/test-server.ts";

let server: TestServer;

beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(async () => server.stop());

async function replyTo(line: string, headers: readonly string[] = [], body = ""): Promise<RawReply> {
  const connection = await RawConnection.open(server.url);
  const all = ["Host: wrenn", `X-API-Key: ${server.key}`, `Content-Length: ${Buffer.byteLength(body)}`, ...headers];
  const [reply] = await connection.send(`${line} HTTP/1.1\r\n${all.join("\r\n")}\r\n\r\n${body}`).untilReplies(1);
  connection.close();
  if (reply === undefined) throw new Error("no answer");
  return reply;
}

const someId = "sb-01900000-0000-7000-8000-000000000000";

describe("an address", () => {
  test.each([
    ["that is only a part of one", "/v1", [404, "route_not_found"]],
    ["with nothing for an id", "/v1/sandboxes/", [400, "invalid_id"]],
    ["of a file of the documentation that there is not", "/docs/static/nothing.js", [404, "route_not_found"]],
    ["that leads out of the documentation", "/docs/static/../../package.json", [404, "route_not_found"]],
    ["that leads out of it, encoded", "/docs/static/%2e%2e/%2e%2e/package.json", [404, "route_not_found"]],
    ["whose percent-encoding is not UTF-8", "/v1/sandboxes/%E0%A4%A", [400, "invalid_request"]],
    ["with an id of another kind", `/v1/sandboxes/${someId.replace("sb-", "team-")}`, [400, "invalid_id"]],
    ["with a NUL for an id", "/v1/sandboxes/%00", [400, "invalid_id"]],
    ["with a way out for an id", "/v1/sandboxes/..%2f..%2fetc%2fpasswd", [400, "invalid_id"]],
    ["with an id that is very long", `/v1/sandboxes/sb-${"0".repeat(500)}`, [400, "invalid_request"]],
    ["with a parameter that there is not", "/v1/sandboxes?page=2", [400, "invalid_request"]],
    ["with a parameter twice", "/v1/sandboxes?limit=1&limit=2", [400, "invalid_request"]],
  ] as const)("%s", async (_what, address, refusal) => {
    expect(errorOf(await replyTo(`GET ${address}`))).toEqual(refusal);
  });

  test("that there is not is so whatever is sent to it, and a method that it does not take", async () => {
    expect(errorOf(await replyTo("POST /v1/nothing", ["Content-Type: application/xml"], "<a/>"))).toEqual([
      404,
      "route_not_found",
    ]);
    expect(errorOf(await replyTo("PUT /v1/sandboxes", ["Content-Type: application/json"], "{"))).toEqual([
      405,
      "method_not_allowed",
    ]);
    expect(errorOf(await replyTo("POST /v1/nothing", ["Content-Encoding: gzip"], "?"))).toEqual([
      404,
      "route_not_found",
    ]);
  });
});

describe("a method", () => {
  test.each([
    ["/v1/sandboxes", "GET, HEAD, OPTIONS, POST"],
    [`/v1/sandboxes/${someId}`, "DELETE, GET, HEAD, OPTIONS, PATCH"],
    ["/openapi.json", "GET, HEAD, OPTIONS"],
    ["/docs/static/swagger-ui.css", "GET, HEAD, OPTIONS"],
  ])("that %s does not take is refused, with those that it takes", async (address, allowed) => {
    const others = METHODS.filter((method) => !allowed.split(", ").includes(method) && method !== "CONNECT");
    expect(others.length).toBeGreaterThan(25);
    for (const method of others) {
      const reply = await replyTo(`${method} ${address}`);
      expect([method, ...errorOf(reply), reply.headers["allow"]]).toEqual([method, 405, "method_not_allowed", allowed]);
    }
  });

  test("OPTIONS is told what an address takes", async () => {
    const reply = await replyTo("OPTIONS /v1/sandboxes");
    expect([reply.status, reply.headers["allow"]]).toEqual([204, "GET, HEAD, OPTIONS, POST"]);
    expect(errorOf(await replyTo("OPTIONS /v1/nothing"))).toEqual([404, "route_not_found"]);
  });
});

test("text is no body of the API", async () => {
  expect(errorOf(await replyTo("POST /v1/sandboxes", ["Content-Type: text/plain"], "{}"))).toEqual([
    415,
    "unsupported_media_type",
  ]);
});
