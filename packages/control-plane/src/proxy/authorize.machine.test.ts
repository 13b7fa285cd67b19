import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { RawClient } from "../testing/raw-client.ts";
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

test.each([
  ["the team's key", () => ({ "X-API-Key": server.key }), 200],
  ["the team's key as a bearer", () => ({ Authorization: `Bearer ${server.key}` }), 200],
  ["the same key in E2B's form", () => ({ "X-API-Key": server.key.replace("wrn_", "e2b_") }), 200],
  ["the sandbox's token", () => ({ "X-Access-Token": sandbox.token }), 200],
  ["nothing", () => ({}), 401],
  ["an unknown key", () => ({ "X-API-Key": `wrn_${"0".repeat(40)}` }), 401],
  ["a malformed key", () => ({ "X-API-Key": "wrn_short" }), 401],
  ["a wrong token", () => ({ "X-Access-Token": "0".repeat(64) }), 401],
  ["a wrong token beside the right key", () => ({ "X-Access-Token": "x", "X-API-Key": server.key }), 200],
] as const)("whoever presents %s is answered %$", async (_what, headers, status) => {
  const { response, text } = await client.send("/", { headers: { "X-API-Key": [], ...headers() } });
  await text();
  expect(response.statusCode).toBe(status);
});

test("a sandbox of another team, or none, is not found", async () => {
  const stranger = await server.makeKey("strangers of the data plane");
  expect(await client.refusal("/", { headers: { "X-API-Key": stranger } })).toEqual([404, "sandbox_not_found"]);
  const unknown = "sb-01900000-0000-7000-8000-000000000000";
  expect(await client.refusal("/", { headers: { "Wrenn-Sandbox-Id": unknown } })).toEqual([404, "sandbox_not_found"]);
  expect(await client.refusal("/", { headers: { "Wrenn-Sandbox-Id": "usr-1" } })).toEqual([400, "invalid_id"]);
});

test("neither key nor token reach user code, and the guest agent gets the token", async () => {
  const headers = {
    Authorization: `Bearer ${server.key}`,
    "X-Access-Token": sandbox.token,
    "Wrenn-Anything": "1",
    "Wrenn-Replay-Output": "true",
    "Proxy-Authorization": "Basic eA==",
    Connection: "close, X-Secret-Hop",
    "X-Secret-Hop": "1",
    TE: "trailers",
    Expect: "100-continue",
  };
  await (await client.send("/", { headers, port: 8080 })).text();
  await (await client.send("/", { headers, port: 49983 })).text();
  const [user, agent] = server.agent.guest.seen;
  expect(Object.keys(user?.headers ?? {}).sort()).toEqual(["connection", "host"]);
  expect(agent?.headers).toMatchObject({ "x-access-token": sandbox.token, "wrenn-replay-output": "true" });
  expect(agent?.headers).not.toHaveProperty("wrenn-anything");
  expect(JSON.stringify([user, agent])).not.toContain(server.key);
});

test("authorization that is not Wrenn's goes through", async () => {
  await (await client.send("/", { headers: { Authorization: "Basic dXNlcjo=" } })).text();
  await (await client.send("/", { headers: { Authorization: "Bearer an.app.token" }, port: 8080 })).text();
  expect(server.agent.guest.seen.map(({ headers }) => headers["authorization"])).toEqual([
    "Basic dXNlcjo=",
    "Bearer an.app.token",
  ]);
});

test.each([
  "/init",
  "/init?x=1",
  "//init",
  "/./init",
  "/a/../init",
  "/%69nit",
  "/INIT/",
  "/init/more",
  "/sync",
  "/tunnel",
])("the guest agent's internal path %s is not there", async (target) => {
  expect(await client.refusal(target, { method: "POST" })).toEqual([404, "route_not_found"]);
  expect(server.agent.guest.seen).toEqual([]);
});

test("a user's own service may have such a path", async () => {
  expect((await client.send("/init", { port: 8080 })).response.statusCode).toBe(200);
});

test("a request's target must be a path", async () => {
  expect(await client.refusal("http://guest/init")).toEqual([400, "invalid_request"]);
  expect(await client.refusal("*", { method: "OPTIONS" })).toEqual([400, "invalid_request"]);
  expect(server.agent.guest.seen).toEqual([]);
});

test("a port where nothing listens, and one that is none", async () => {
  expect(await client.refusal("/", { port: 9 })).toEqual([502, "port_closed"]);
  for (const port of ["0", "65536", "8o8o"]) {
    const headers = { "Wrenn-Sandbox-Port": port };
    expect(await client.refusal("/", { headers })).toEqual([400, "invalid_request"]);
  }
});

test("a sandbox that does not run cannot be reached, and says what it is", async () => {
  const other = await server.create();
  const headers = { "Wrenn-Sandbox-Id": other.id };
  expect((await client.send("/", { headers })).response.statusCode).toBe(200);
  await server.call("DELETE", `/v1/sandboxes/${other.id}`);
  const answer = await client.send("/", { headers });
  expect(answer.response.statusCode).toBe(409);
  expect(JSON.parse(await answer.text())).toMatchObject({
    error: { code: "sandbox_state_conflict", details: { status: "stopped" } },
  });
});

test("a tunnel that the host refuses has the reconciler look at once", async () => {
  const other = await server.create();
  server.agent.kill(other.uuid, "guest_panicked", "Kernel panic - not syncing");
  expect(await client.refusal("/", { headers: { "Wrenn-Sandbox-Id": other.id } })).toEqual([
    409,
    "sandbox_state_conflict",
  ]);
  await eventually(async () => expect(await server.statusOf(other.uuid)).toBe("error"));
});

test("keys and tokens are in no line of the log", async () => {
  await client.send("/", { headers: { "X-API-Key": `wrn_${"2".repeat(40)}` } });
  await server.create({ envs: { PASSWORD: "hunter2hunter2" } });
  const log = server.logged.join("");
  expect(log).toContain("sandbox created");
  for (const secret of [server.key.slice(4), sandbox.token, "2".repeat(40), "hunter2hunter2"]) {
    expect(log).not.toContain(secret);
  }
});
