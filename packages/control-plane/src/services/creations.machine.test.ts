import { WrennError } from "@wrenn/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, gate, TestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});
afterEach(async () => server.stop());

async function createWith(key: string, body: unknown = {}, init: { key?: string; url?: string } = {}): Promise<Answer> {
  return server.post("/v1/sandboxes", body, { ...init, headers: { "Idempotency-Key": key } });
}

/** Status, id and whether it was an earlier request's. */
function summary({ status, body, headers }: Answer): [number, string | undefined, boolean] {
  return [status, body["id"], headers.get("idempotent-replayed") === "true"];
}

/** Holds every creation on the host until it is released, and has it fail then if there is a failure. */
function holdCreations(failure?: WrennError): { asked: Promise<void>; release: () => void } {
  const asked = gate();
  const held = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
    if (failure !== undefined) throw failure;
  };
  return { asked: asked.opened, release: held.open };
}

/** Resolves when so many requests have found an earlier one. */
async function untilRepeated(times: number): Promise<void> {
  await eventually(() => {
    expect(server.logged.filter((line) => line.includes("asked for again"))).toHaveLength(times);
  });
}

test("the same key and request answer the same sandbox, however the request is written", async () => {
  const body = { metadata: { a: "1", b: "2" }, envs: { X: "x", Y: "y" }, memory_mib: 256 };
  const first = await createWith("k", body);
  expect(first.headers.has("idempotent-replayed")).toBe(false);
  const reordered = {
    memory_mib: 256,
    envs: { Y: "y", X: "x" },
    metadata: { b: "2", a: "1" },
    template: "minimal",
  };
  for (const again of [body, reordered]) {
    const answer = await createWith("k", again);
    expect(summary(answer)).toEqual([201, first.body["id"], true]);
    expect(answer.body["access_token"]).toBe(first.body["access_token"]);
  }
  expect(server.agent.creates).toHaveLength(1);
});

test("the sandbox is answered also after it was destroyed, and says so", async () => {
  const { id } = (await createWith("k")).body as unknown as { id: string };
  await server.call("DELETE", `/v1/sandboxes/${id}`);
  const again = await createWith("k");
  expect(summary(again)).toEqual([201, id, true]);
  expect(again.body).toMatchObject({ status: "stopped", expires_at: null });
  expect(server.agent.creates).toHaveLength(1);
});

test.each([
  ["another size", { memory_mib: 512 }],
  ["another environment", { envs: { SECRET: "b" } }],
  ["another timeout", { timeout_seconds: 5 }],
])("the same key with %s is a conflict", async (_what, difference) => {
  const body = { memory_mib: 256, envs: { SECRET: "a" } };
  await createWith("k", body);
  const answer = await createWith("k", { ...body, ...difference });
  expect([answer.status, answer.body]).toMatchObject([409, { error: { code: "idempotency_conflict" } }]);
  expect(server.agent.creates).toHaveLength(1);
});

test("a key is a team's own, and another key is another sandbox", async () => {
  const stranger = await server.makeKey("strangers");
  const answers = [await createWith("k"), await createWith("k", {}, { key: stranger }), await createWith("l")];
  expect(new Set(answers.map(({ body }) => body["id"])).size).toBe(3);
});

test.each([
  ["empty", ""],
  ["longer than 255 characters", "k".repeat(256)],
  ["not ASCII", "kö"],
  ["not printable", "a\tb"],
])("a key that is %s is refused", async (_what, key) => {
  const answer = await createWith(key);
  expect([answer.status, answer.body]).toMatchObject([
    400,
    { error: { code: "invalid_request", details: { fields: [{ field: "idempotency-key" }] } } },
  ]);
});

test("a key may be any 255 printable characters", async () => {
  const key = `!"#$%&'()*+,-./:;<=>?@[\\]^_\`{|}~ ${"k".repeat(255)}`.slice(0, 255);
  const first = await createWith(key);
  expect(summary(await createWith(key))).toEqual([201, first.body["id"], true]);
});

test("requests at the same time, of two replicas, make one sandbox and all answer it", async () => {
  const second = await server.startReplica();
  const { asked, release } = holdCreations();
  const calls = Array.from({ length: 12 }, async (_, at) =>
    createWith("k", {}, at % 2 === 0 ? {} : { url: second.url }),
  );
  await asked;
  await untilRepeated(11);
  release();
  const answers = await Promise.all(calls);
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201));
  expect(new Set(answers.map(({ body }) => body["id"])).size).toBe(1);
  expect(answers.filter(({ headers }) => headers.has("idempotent-replayed"))).toHaveLength(11);
  expect(answers.map(({ body }) => body["status"])).toEqual(answers.map(() => "running"));
  expect(server.agent.creates).toHaveLength(1);
  expect(await server.query("SELECT id FROM sandboxes")).toHaveLength(1);
});

test("of different requests with one key at the same time one is carried out", async () => {
  const answers = await Promise.all([256, 512, 256, 512].map(async (memory_mib) => createWith("k", { memory_mib })));
  expect(answers.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([201, 201, 409, 409]);
  expect(server.agent.creates).toHaveLength(1);
});

test("repeated requests that meet at the host's last room answer its sandbox", async () => {
  const second = await server.startReplica();
  await server.giveHostMemory(512 + 512 + 384 + 100);
  const calls = Array.from({ length: 8 }, async (_, at) =>
    createWith("k", {}, at % 2 === 0 ? {} : { url: second.url }),
  );
  const answers = await Promise.all(calls);
  expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 201));
  expect(new Set(answers.map(({ body }) => body["id"])).size).toBe(1);
});

test.each([
  ["no_capacity", { memory_mib: 65_536 }],
  ["template_not_found", { template: "elsewhere" }],
  ["invalid_name", { template: "../etc" }],
])("a create that fails with %s leaves its key unused", async (code, body) => {
  for (let time = 0; time < 2; time += 1) expect((await createWith("k", body)).body).toMatchObject({ error: { code } });
  const other = await createWith("k");
  expect(summary(other)).toEqual([201, other.body["id"], false]);
});

test("a create that fails on the host leaves its key unused, also when its sandbox was removed", async () => {
  server.agent.beforeCreate = async () => {
    throw new WrennError("guest_boot_timeout");
  };
  expect((await createWith("k")).status).toBe(504);
  expect((await createWith("k")).status).toBe(504);
  const [failed] = await server.query<{ id: string }>("SELECT id FROM sandboxes ORDER BY id DESC LIMIT 1");
  expect((await server.call("DELETE", `/v1/sandboxes/sb-${failed?.id ?? ""}`)).status).toBe(204);
  server.agent.beforeCreate = async () => undefined;
  const first = await createWith("k");
  expect(summary(first)).toEqual([201, first.body["id"], false]);
  expect(summary(await createWith("k"))).toEqual([201, first.body["id"], true]);
  expect(server.agent.creates).toHaveLength(3);
});

test("a repeated request that waits for a create that fails is told why", async () => {
  const { asked, release } = holdCreations(new WrennError("guest_panicked", { message: "VFS: unable to mount root." }));
  const first = createWith("k");
  await asked;
  const waiting = [createWith("k"), createWith("k")];
  await untilRepeated(2);
  release();
  for (const { status, body } of await Promise.all([first, ...waiting])) {
    expect([status, body]).toMatchObject([
      500,
      { error: { code: "guest_panicked", message: "VFS: unable to mount root." } },
    ]);
  }
  expect(server.agent.creates).toHaveLength(1);
});

test("a sandbox that was destroyed while it started is not made again", async () => {
  const { asked, release } = holdCreations();
  const creating = createWith("k");
  await asked;
  const [row] = await server.query<{ id: string }>("SELECT id FROM sandboxes");
  expect((await server.call("DELETE", `/v1/sandboxes/sb-${row?.id ?? ""}`)).status).toBe(204);
  release();
  expect((await creating).status).toBe(409);
  const again = await createWith("k");
  expect(summary(again)).toEqual([201, `sb-${row?.id ?? ""}`, true]);
  expect(again.body).toMatchObject({ status: "stopped" });
});

test("a create that nobody completes and that the host does not have leaves its key unused", async () => {
  const { asked, release } = holdCreations();
  createWith("k").catch(() => undefined);
  await asked;
  const [row] = await server.query<{ id: string }>("SELECT id FROM sandboxes");
  const uuid = row?.id ?? "";
  // As after kill -9 of the replica that was creating it, past its deadline.
  server.agent.sandboxes.delete(uuid);
  await server.query("UPDATE sandboxes SET deadline_at = now() WHERE id = $1", [uuid]);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  server.agent.beforeCreate = async () => undefined;
  const again = await createWith("k");
  expect(summary(again)).toEqual([201, again.body["id"], false]);
  expect(again.body["id"]).not.toBe(`sb-${uuid}`);
  release();
});

test("keys are forgotten after a day, and not before", async () => {
  const older = (await createWith("older")).body["id"];
  const newer = (await createWith("newer")).body["id"];
  await server.query(
    `UPDATE idempotency_keys SET created_at = now() - CASE WHEN 'sb-' || sandbox_id = $1
       THEN interval '24 hours 1 minute' ELSE interval '23 hours 59 minutes' END`,
    [older],
  );
  await eventually(async () => expect(await server.query("SELECT FROM idempotency_keys")).toHaveLength(1));
  expect(summary(await createWith("newer"))).toEqual([201, newer, true]);
  const again = await createWith("older");
  expect(summary(again)).toEqual([201, again.body["id"], false]);
});

test("what is kept of a request gives away neither its key nor its environment", async () => {
  const body = { envs: { PIN: "1234" } };
  await createWith("key-one", body);
  await createWith("key-two", body);
  const rows = await server.query<{ key_hash: Buffer; request_hash: Buffer; text: string }>(
    "SELECT key_hash, request_hash, idempotency_keys::text AS text FROM idempotency_keys",
  );
  for (const { text } of rows) expect(text).not.toMatch(/key-one|key-two|1234/);
  // The same request is not to be seen as the same, so that nobody can compare it with guesses of their own.
  expect(
    new Set(rows.flatMap(({ key_hash, request_hash }) => [key_hash.toString("hex"), request_hash.toString("hex")]))
      .size,
  ).toBe(4);
  expect(server.logged.filter((line) => /key-one|key-two|1234/.test(line))).toEqual([]);
});
