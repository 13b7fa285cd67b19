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
