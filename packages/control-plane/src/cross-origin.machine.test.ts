import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RawClient } from "./testing/raw-client.ts";
import { RawConnection } from "./testing/raw-connection.ts";
import { allowedOrigin, TestServer } from "./testing/test-server.ts";

let server: TestServer;
let sandbox: RawClient;

beforeAll(async () => {
  server = await TestServer.start();
  sandbox = new RawClient(server, (await server.create()).id);
});
afterAll(async () => server.stop());

/** Status, and the headers that have to do with origins, as they come over the wire. */
async function answerTo(line: string, lines: readonly string[]): Promise<Record<string, string | number>> {
  const connection = await RawConnection.open(server.url);
  const head = [`${line} HTTP/1.1`, "Host: wrenn", ...lines, "", ""].join("\r\n");
  const [reply] = await connection.send(head).untilReplies(1);
  connection.close();
  if (reply === undefined) throw new Error("no answer");
  const telling = Object.entries(reply.headers).filter(([name]) => /^(?:access-control-.*|vary)$/.test(name));
  return { status: reply.status, ...Object.fromEntries(telling) };
}

const preflight = (origin: string): string[] => [
  `Origin: ${origin}`,
  "Access-Control-Request-Method: POST",
  "Access-Control-Request-Headers: x-api-key,wrenn-sandbox-id,connect-protocol-version",
];
const readable = {
  "access-control-allow-origin": allowedOrigin,
  "access-control-expose-headers": "*",
  vary: "Origin",
};

describe("a page of an allowed origin", () => {
  test.each(["/v1/sandboxes", "/process.Process/Start", "/"])("may send any request to %s", async (address) => {
    expect(await answerTo(`OPTIONS ${address}`, preflight(allowedOrigin))).toEqual({
      status: 204,
      ...readable,
      "access-control-allow-methods": "*",
      "access-control-allow-headers": "*, Authorization",
      "access-control-max-age": "600",
    });
  });

  test.each([
    ["an answer", "GET /health", [], 200],
    ["a refusal", "GET /v1/sandboxes", [], 401],
    ["that there is nothing", "GET /v1/nothing", [], 404],
    ["a refusal of the data plane", "GET /", ["Wrenn-Sandbox-Id: sb-1"], 400],
  ])("reads %s", async (_what, line, lines, status) => {
    expect(await answerTo(line, [`Origin: ${allowedOrigin}`, ...lines])).toEqual({ status, ...readable });
  });

  test("reads what a sandbox answers, whatever the sandbox thinks of other origins", async () => {
    const { response } = await sandbox.send("/cross-origin", { port: 8080, headers: { Origin: allowedOrigin } });
    response.resume();
    const { rawHeaders, statusCode } = response;
    expect(statusCode).toBe(200);
    const values = (name: string): string[] =>
      rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name);
    expect(values("access-control-allow-origin")).toEqual([allowedOrigin]);
    expect(values("access-control-expose-headers")).toEqual(["*"]);
    expect(values("access-control-allow-credentials")).toEqual([]);
    expect(values("vary").join(", ")).toBe("Origin, Accept");
    expect(values("set-cookie")).toEqual(["a=1", "b=2"]);
  });
});

describe.each(["https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null"])(
  "a page of %s",
  (origin) => {
    test("may not send what its browser asks for beforehand", async () => {
      expect(await answerTo("OPTIONS /v1/sandboxes", preflight(origin))).toEqual({ status: 403 });
    });

    test("cannot read what it sends all the same", async () => {
      expect(await answerTo("GET /health", [`Origin: ${origin}`])).toEqual({ status: 200 });
      const { response } = await sandbox.send("/", { port: 8080, headers: { Origin: origin } });
      response.resume();
      expect(response.statusCode).toBe(200);
      expect(response.headers).not.toHaveProperty("access-control-allow-origin");
    });
  },
);

test("who is no page is told nothing of origins", async () => {
  expect(await answerTo("GET /health", [])).toEqual({ status: 200 });
});
