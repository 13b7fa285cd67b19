import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Sandbox, type SandboxInfo } from "./index.ts";
import { apiKey, sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;

beforeEach(async () => {
  server = await ServerStandIn.start({});
});

afterEach(async () => {
  await server.stop();
});

async function listAll(options: Parameters<typeof Sandbox.list>[0] = {}): Promise<SandboxInfo[]> {
  const all = [];
  for await (const info of Sandbox.list({ ...server.api, ...options })) all.push(info);
  return all;
}

describe("sandboxes", () => {
  it("are created from what was asked for, and nothing else", async () => {
    server.answers.push({ status: 201, body: { ...server.sandbox, access_token: "secret" } });
    const sandbox = await Sandbox.create({ ...server.api, memoryMib: 256, envs: { A: "1" }, timeoutMs: 1_500 });
    expect(sandbox.id).toBe(sandboxId);
    const [request] = server.requests;
    expect(request).toMatchObject({ method: "POST", path: "/v1/sandboxes" });
    expect(JSON.parse(request?.body ?? "")).toEqual({ memory_mib: 256, envs: { A: "1" }, timeout_seconds: 2 });
    expect(request?.headers).toMatchObject({ "x-api-key": apiKey });
  });

  it("are listed page after page, as they are read", async () => {
    const older = { ...server.sandbox, id: "sb-01890000-0000-7000-8000-000000000000" };
    server.answers.push({ status: 200, body: { sandboxes: [server.sandbox], next_cursor: sandboxId } });
    server.answers.push({ status: 200, body: { sandboxes: [older], next_cursor: null } });
    const seen = [];
    for await (const { id } of Sandbox.list(server.api)) {
      seen.push(id);
      expect(server.requests).toHaveLength(seen.length);
    }
    expect(seen).toEqual([sandboxId, older.id]);
    expect(server.requests.at(-1)?.path).toContain(`cursor=${sandboxId}`);
  });

  it("are destroyed", async () => {
    await Sandbox.destroy(sandboxId, server.api);
    expect(server.requests.at(-1)).toMatchObject({ method: "DELETE", path: `/v1/sandboxes/${sandboxId}` });
  });
});

describe("a list", () => {
  it("asks for what is wanted, and no further than for that", async () => {
    const page = { sandboxes: [server.sandbox, server.sandbox], next_cursor: sandboxId };
    server.answers.push({ status: 200, body: page }, { status: 200, body: page });
    const metadata = { app: "a=b&c", stage: "x y" };
    const found = await listAll({ status: ["running", "error"], template: "minimal", metadata, limit: 3 });
    expect(found).toHaveLength(3);
    const queries = server.requests.map(({ path }) => new URLSearchParams(path.split("?")[1]));
    expect(queries.map((query) => query.get("limit"))).toEqual(["3", "1"]);
    expect(queries.map((query) => query.get("cursor"))).toEqual([null, sandboxId]);
    expect(queries[0]?.get("status")).toBe("running,error");
    expect(queries[0]?.get("template")).toBe("minimal");
    expect(queries[0]?.getAll("metadata")).toEqual(["app=a=b&c", "stage=x y"]);
  });

  it("that is left early asks for nothing more", async () => {
    server.answers.push({ status: 200, body: { sandboxes: [server.sandbox], next_cursor: sandboxId } });
    for await (const info of Sandbox.list(server.api)) {
      expect(info.id).toBe(sandboxId);
      break;
    }
    expect(server.requests).toHaveLength(1);
  });
});

describe("a sandbox", () => {
  it("is described in the words of this language", async () => {
    server.sandbox.timeout_seconds = 60;
    server.sandbox.expires_at = "2026-01-01T00:01:00.000Z";
    const { info } = await Sandbox.connect(sandboxId, server.api);
    expect(info).toEqual({
      id: sandboxId,
      teamId: "team-01890000-0000-7000-8000-000000000002",
      template: "minimal",
      status: "running",
      statusReason: null,
      vcpus: 1,
      memoryMib: 512,
      diskMib: 5_120,
      metadata: {},
      timeoutMs: 60_000,
      onTimeout: "destroy",
      expiresAt: new Date("2026-01-01T00:01:00.000Z"),
      hostId: null,
      engine: "qemu-tcg",
      engineReason: null,
      diskFormat: "qcow2",
      memoryBackend: "file",
      recoverable: [],
      createdAt: new Date("2026-01-01T00:00:00.000Z"),
      startedAt: new Date("2026-01-01T00:00:01.000Z"),
      pausedAt: null,
    });
  });

  it("is changed, and known as changed", async () => {
    const sandbox = await Sandbox.connect(sandboxId, server.api);
    server.answers.push({ status: 200, body: { ...server.sandbox, metadata: { a: "1" } } });
    await sandbox.update({ metadata: { a: "1" }, timeoutMs: null });
    expect(sandbox.info.metadata).toEqual({ a: "1" });
    const { method, path, body = "" } = server.requests.at(-1) ?? {};
    expect([method, path]).toEqual(["PATCH", `/v1/sandboxes/${sandboxId}`]);
    expect(JSON.parse(body)).toEqual({ metadata: { a: "1" }, timeout_seconds: null });
  });

  it("is destroyed at the end of the block that uses it", async () => {
    server.answers.push({ status: 201, body: { ...server.sandbox, access_token: "secret" } });
    {
      await using sandbox = await Sandbox.create(server.api);
      expect(sandbox.id).toBe(sandboxId);
    }
    expect(server.requests.at(-1)).toMatchObject({ method: "DELETE", path: `/v1/sandboxes/${sandboxId}` });
  });

  it("tells Wrenn's refusals from what its own services answer", async () => {
    const sandbox = await Sandbox.connect(sandboxId, server.api);
    const body = { error: { code: "port_closed", message: "Nothing listens there." } };
    server.answers.push({ status: 502, body }, { status: 502, body, headers: { "wrenn-error": "port_closed" } });
    const response = await sandbox.fetch(8080, "/a?b=c", { headers: { "x-mine": "1" } });
    expect([response.status, await response.json()]).toEqual([502, body]);
    expect(server.requests.at(-1)?.headers).toMatchObject({ "wrenn-sandbox-port": "8080", "x-mine": "1" });
    await expect(sandbox.fetch(8080, "/")).rejects.toMatchObject({ name: "GuestError", code: "port_closed" });
  });
});

describe("errors", () => {
  it("carry the server's code, message, suggestion and request id", async () => {
    server.answers.push({
      status: 503,
      body: { error: { code: "no_capacity", message: "Full.", suggestion: "Wait.", request_id: "r1" } },
    });
    await expect(Sandbox.create(server.api)).rejects.toMatchObject({
      name: "CapacityError",
      code: "no_capacity",
      message: "Full.",
      suggestion: "Wait.",
      requestId: "r1",
    });
  });

  it("of a code this client does not know stay readable", async () => {
    server.answers.push({ status: 418, body: { error: { code: "teapot", message: "Short and stout." } } });
    await expect(Sandbox.connect(sandboxId, server.api)).rejects.toMatchObject({
      code: "internal",
      message: "Short and stout. (teapot)",
      details: { code: "teapot" },
    });
  });

  it("of something that is no Wrenn server name what it answered", async () => {
    server.answers.push({ status: 200, body: "hello" });
    await expect(Sandbox.connect(sandboxId, server.api)).rejects.toThrow("not of the expected form");
  });

  it("tell a server that is not there from everything else", async () => {
    const api = { apiUrl: "http://127.0.0.1:1", apiKey };
    await expect(Sandbox.connect(sandboxId, api)).rejects.toMatchObject({
      name: "ConnectionError",
      code: "server_unreachable",
      retryable: true,
    });
  });

  it("leave an abort what it is", async () => {
    const reason = new Error("enough");
    await expect(listAll({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
