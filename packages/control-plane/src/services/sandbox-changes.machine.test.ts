import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, gate, TestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});
afterEach(async () => server.stop());

async function patch(id: string, change: unknown, init: { key?: string; url?: string } = {}): Promise<Answer> {
  return server.send("PATCH", `/v1/sandboxes/${id}`, change, init);
}

async function expiryOf(id: string): Promise<number> {
  const { body } = await server.call("GET", `/v1/sandboxes/${id}`);
  return Date.parse(String(body["expires_at"]));
}

test("a create keeps timeout and action, and says when it expires", async () => {
  const { body } = await server.post("/v1/sandboxes", { timeout_seconds: 600, on_timeout: "destroy" });
  expect(body).toMatchObject({ timeout_seconds: 600, on_timeout: "destroy" });
  const left = Date.parse(String(body["expires_at"])) - Date.parse(String(body["started_at"]));
  expect(left).toBeGreaterThan(590_000);
  expect(left).toBeLessThan(610_000);
  expect((await server.post("/v1/sandboxes", {})).body).toMatchObject({
    timeout_seconds: null,
    on_timeout: "pause",
    expires_at: null,
  });
});

test.each([
  ["no time at all", { timeout_seconds: 0 }],
  ["more than 30 days", { timeout_seconds: 2_592_001 }],
  ["half a second", { timeout_seconds: 0.5 }],
  ["an action that there is not", { on_timeout: "sell" }],
  ["nothing", {}],
  ["a field that cannot change", { vcpus: 2 }],
  ["metadata with a NUL", { metadata: { a: "\0" } }],
  ["metadata with half a surrogate pair", { metadata: { "\ud83d": "a" } }],
])("an update with %s is refused", async (_what, change) => {
  const { id } = await server.create();
  const answer = await patch(id, change);
  expect([answer.status, answer.body]).toMatchObject([400, { error: { code: "invalid_request" } }]);
});

test("an update changes what it names and leaves the rest", async () => {
  const { id } = await server.create({ metadata: { a: "1", b: "2" }, timeout_seconds: 600 });
  expect((await patch(id, { metadata: { c: "3" } })).body).toMatchObject({
    metadata: { c: "3" },
    timeout_seconds: 600,
    on_timeout: "pause",
  });
  const untimed = await patch(id, { timeout_seconds: null });
  expect([untimed.status, untimed.body]).toMatchObject([
    200,
    { metadata: { c: "3" }, timeout_seconds: null, expires_at: null },
  ]);
  expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toEqual(untimed.body);
});

test("updates at the same time, of two replicas, keep what the others changed", async () => {
  const second = await server.startReplica();
  const { id } = await server.create();
  for (let round = 1; round <= 10; round += 1) {
    const metadata = { round: String(round) };
    await Promise.all([patch(id, { metadata }), patch(id, { timeout_seconds: round * 100 }, { url: second.url })]);
    expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
      metadata,
      timeout_seconds: round * 100,
    });
  }
});

test("an update and a change of status at the same time both happen", async () => {
  const asked = gate();
  const held = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  const creating = server.post("/v1/sandboxes", {});
  await asked.opened;
  const [row] = await server.query<{ id: string }>("SELECT id FROM sandboxes");
  const id = `sb-${row?.id ?? ""}`;
  const early = await patch(id, { metadata: { while: "starting" }, timeout_seconds: 600 });
  expect([early.status, early.body]).toMatchObject([200, { status: "starting", expires_at: null }]);
  held.open();
  const changes = Array.from({ length: 5 }, async () => patch(id, { timeout_seconds: 700 }));
  expect((await creating).body).toMatchObject({ status: "running", metadata: { while: "starting" } });
  expect((await Promise.all(changes)).map(({ status }) => status)).toEqual(changes.map(() => 200));
  expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
    status: "running",
    timeout_seconds: 700,
  });
});

test("what has come to its end cannot be changed or used", async () => {
  const { id } = await server.create();
  await server.call("DELETE", `/v1/sandboxes/${id}`);
  for (const answer of [
    await patch(id, { timeout_seconds: 5 }),
    await server.call("POST", `/v1/sandboxes/${id}/ping`),
  ]) {
    expect([answer.status, answer.body]).toMatchObject([
      409,
      { error: { code: "sandbox_state_conflict", details: { status: "stopped" } } },
    ]);
  }
});

test("another team can neither change nor ping a sandbox", async () => {
  const { id } = await server.create({ timeout_seconds: 600 });
  const key = await server.makeKey("strangers");
  for (const answer of [
    await patch(id, { timeout_seconds: 1 }, { key }),
    await server.call("POST", `/v1/sandboxes/${id}/ping`, { key }),
  ]) {
    expect([answer.status, answer.body]).toMatchObject([404, { error: { code: "sandbox_not_found" } }]);
  }
  expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({ timeout_seconds: 600 });
});

test.each<[string, (id: string) => Promise<Answer>]>([
  ["a ping", async (id) => server.call("POST", `/v1/sandboxes/${id}/ping`)],
  [
    "a ping of a client that says JSON with every request",
    async (id) => server.call("POST", `/v1/sandboxes/${id}/ping`, { headers: { "Content-Type": "application/json" } }),
  ],
  ["an update", async (id) => patch(id, { metadata: {} })],
])("%s moves the time at which the sandbox expires", async (_what, use) => {
  const { id, uuid } = await server.create({ timeout_seconds: 600 });
  await server.query("UPDATE sandboxes SET last_active_at = now() - interval '5 minutes' WHERE id = $1", [uuid]);
  const before = await expiryOf(id);
  expect((await use(id)).status).toBeLessThan(300);
  expect((await expiryOf(id)) - before).toBeGreaterThan(200_000);
  // Not only this replica knows.
  await eventually(async () => {
    const [row] = await server.query("SELECT last_active_at > now() - interval '4 minutes' AS moved FROM sandboxes");
    expect(row).toEqual({ moved: true });
  });
});
