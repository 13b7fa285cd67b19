import { afterEach, beforeEach, expect, test } from "vitest";
import { WrennError } from "@wrenn/contract";
import { eventually, gate, TestServer } from "../testing/test-server.ts";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});
afterEach(async () => server.stop());

test("a create answers a running sandbox, and every change of its status is one event", async () => {
  const { status, body } = await server.post("/v1/sandboxes", {
    metadata: { purpose: "test" },
    envs: { SECRET: "s3cret" },
  });
  expect(status).toBe(201);
  expect(body).toMatchObject({
    status: "running",
    template: "minimal",
    vcpus: 1,
    memory_mib: 512,
    disk_mib: 5120,
    metadata: { purpose: "test" },
    engine: "qemu-tcg",
    status_reason: null,
  });
  expect(body).not.toHaveProperty("envs");
  const { id, access_token } = body as unknown as { id: string; access_token: string };
  const uuid = id.slice(3);
  expect(server.agent.creates).toMatchObject([
    { sandboxId: uuid, envs: { SECRET: "s3cret" }, accessToken: access_token },
  ]);
  expect((await server.call("DELETE", `/v1/sandboxes/${id}`)).status).toBe(204);
  expect(await server.eventsOf(uuid)).toEqual([
    "none→starting",
    "starting→running",
    "running→stopping",
    "stopping→stopped",
  ]);
  const [row] = await server.query("SELECT deadline_at FROM sandboxes WHERE id = $1", [uuid]);
  expect(row).toEqual({ deadline_at: null });
});

test("creates at the same time never promise more memory than the host has", async () => {
  // Room for three of 512 MiB, with an engine each, beside what the host keeps.
  await server.giveHostMemory(512 + 3 * (512 + 384) + 100);
  const answers = await Promise.all(Array.from({ length: 10 }, async () => server.post("/v1/sandboxes", {})));
  expect(answers.map(({ status }) => status).sort((a, b) => a - b)).toEqual([
    201, 201, 201, 503, 503, 503, 503, 503, 503, 503,
  ]);
  expect(answers.find(({ status }) => status === 503)?.body).toMatchObject({ error: { code: "no_capacity" } });
  expect(server.agent.sandboxes.size).toBe(3);
});

test("a create that fails on the host reaches the caller with its code and occupies nothing", async () => {
  server.agent.beforeCreate = async () => {
    throw new WrennError("guest_boot_timeout", { details: { console: "panic" } });
  };
  const { status, body } = await server.post("/v1/sandboxes", {});
  expect(status).toBe(504);
  expect(body).toMatchObject({ error: { code: "guest_boot_timeout", details: { console: "panic" } } });
  const rows = await server.query("SELECT status, status_reason_code FROM sandboxes");
  expect(rows).toEqual([{ status: "error", status_reason_code: "guest_boot_timeout" }]);
});

test("a create whose outcome the host could not tell ends stopped", async () => {
  server.agent.beforeCreate = async () => {
    // The agent dies with the sandbox half made, and comes back with it.
    await server.agent.pause();
  };
  const { status, body } = await server.post("/v1/sandboxes", {});
  expect([status, body]).toMatchObject([503, { error: { code: "host_unavailable" } }]);
  await server.agent.resume();
  await eventually(async () => {
    expect(await server.query("SELECT status FROM sandboxes")).toEqual([{ status: "stopped" }]);
    expect(server.agent.sandboxes.size).toBe(0);
  });
});

test("a create goes on when its client has gone", async () => {
  const held = gate();
  const asked = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  const leaving = new AbortController();
  const call = server.post("/v1/sandboxes", {}, { signal: leaving.signal });
  await asked.opened;
  leaving.abort();
  await expect(call).rejects.toThrow("aborted");
  held.open();
  await eventually(async () => {
    const { body } = await server.call("GET", "/v1/sandboxes");
    expect(body).toMatchObject({ sandboxes: [{ status: "running" }] });
  });
});

test("a host's failure to destroy reaches the caller, and the destroy is completed later", async () => {
  const { id, uuid } = await server.create();
  let failing = true;
  server.agent.beforeDestroy = async () => {
    if (failing) throw new WrennError("engine_failed", { message: "the engine will not die" });
  };
  const { status, body } = await server.call("DELETE", `/v1/sandboxes/${id}`);
  expect([status, body]).toMatchObject([500, { error: { code: "engine_failed", message: "the engine will not die" } }]);
  expect(await server.statusOf(uuid)).toBe("stopping");
  failing = false;
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("stopped"));
});

test("a destroy succeeds when the host no longer has the sandbox", async () => {
  const { id, uuid } = await server.create();
  server.agent.sandboxes.delete(uuid);
  expect((await server.call("DELETE", `/v1/sandboxes/${id}`)).status).toBe(204);
  expect(await server.statusOf(uuid)).toBe("stopped");
});

test("two destroys at once both succeed, with one event for each change; a third finds nothing", async () => {
  const { id, uuid } = await server.create();
  const met = gate();
  let asked = 0;
  server.agent.beforeDestroy = async () => {
    asked += 1;
    if (asked === 2) met.open();
    await met.opened;
  };
  const both = await Promise.all([1, 2].map(async () => server.call("DELETE", `/v1/sandboxes/${id}`)));
  expect(both.map(({ status }) => status)).toEqual([204, 204]);
  expect((await server.eventsOf(uuid)).slice(2)).toEqual(["running→stopping", "stopping→stopped"]);
  const third = await server.call("DELETE", `/v1/sandboxes/${id}`);
  expect([third.status, third.body]).toMatchObject([404, { error: { code: "sandbox_not_found" } }]);
  expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({ status: "stopped" });
});

test("a sandbox can be destroyed while it starts", async () => {
  const held = gate();
  const asked = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  const creating = server.post("/v1/sandboxes", {});
  await asked.opened;
  const { body } = await server.call("GET", "/v1/sandboxes");
  const [{ id }] = body["sandboxes"] as unknown as [{ id: string }];
  expect((await server.call("DELETE", `/v1/sandboxes/${id}`)).status).toBe(204);
  held.open();
  const created = await creating;
  expect([created.status, created.body]).toMatchObject([409, { error: { code: "sandbox_state_conflict" } }]);
  await eventually(() => expect(server.agent.sandboxes.size).toBe(0));
  expect(await server.statusOf(id.slice(3))).toBe("stopped");
});

test("sandboxes of other teams do not exist", async () => {
  const { id } = await server.create();
  const stranger = await server.makeKey("strangers");
  for (const method of ["GET", "DELETE"]) {
    const { status, body } = await server.call(method, `/v1/sandboxes/${id}`, { key: stranger });
    expect([status, body]).toMatchObject([404, { error: { code: "sandbox_not_found" } }]);
  }
  expect((await server.call("GET", "/v1/sandboxes", { key: stranger })).body).toEqual({
    sandboxes: [],
    next_cursor: null,
  });
});

test("pages of a list lose and repeat nothing, and leave out the stopped unless asked", async () => {
  const ids: string[] = [];
  for (let count = 0; count < 5; count += 1) ids.unshift((await server.create()).id);
  const seen: string[] = [];
  for (let cursor: string | null = ""; cursor !== null;) {
    const { body } = await server.call("GET", `/v1/sandboxes?limit=2${cursor === "" ? "" : `&cursor=${cursor}`}`);
    const page = body as unknown as { sandboxes: { id: string }[]; next_cursor: string | null };
    seen.push(...page.sandboxes.map(({ id }) => id));
    cursor = page.next_cursor;
  }
  expect(seen).toEqual(ids);
  await server.call("DELETE", `/v1/sandboxes/${ids[0] ?? ""}`);
  const listed = async (query: string): Promise<string[]> => {
    const { body } = await server.call("GET", `/v1/sandboxes${query}`);
    return (body as unknown as { sandboxes: { id: string }[] }).sandboxes.map(({ id }) => id);
  };
  expect(await listed("")).toEqual(ids.slice(1));
  expect(await listed("?status=stopped")).toEqual(ids.slice(0, 1));
  expect(await listed("?status=stopped,running")).toEqual(ids);
});
