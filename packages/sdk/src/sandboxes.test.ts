import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WrennClient } from "./client.ts";
import { apiKey, sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;

beforeEach(async () => {
  server = await ServerStandIn.start({});
});

afterEach(async () => {
  await server.stop();
});

describe("sandboxes", () => {
  it("are created from what was asked for, and nothing else", async () => {
    server.answers.push({ status: 201, body: { ...server.sandbox, access_token: "secret" } });
    const sandbox = await server.client.sandboxes.create({ memoryMib: 256, envs: { A: "1" } });
    expect(sandbox.id).toBe(sandboxId);
    const [request] = server.requests;
    expect(request).toMatchObject({ method: "POST", path: "/v1/sandboxes" });
    expect(JSON.parse(request?.body ?? "")).toEqual({ memory_mib: 256, envs: { A: "1" } });
    expect(request?.headers).toMatchObject({ "x-api-key": apiKey });
  });

  it("are listed page after page", async () => {
    const older = { ...server.sandbox, id: "sb-01890000-0000-7000-8000-000000000000" };
    server.answers.push({ status: 200, body: { sandboxes: [server.sandbox], next_cursor: sandboxId } });
    server.answers.push({ status: 200, body: { sandboxes: [older], next_cursor: null } });
    const sandboxes = await server.client.sandboxes.list();
    expect(sandboxes.map(({ id }) => id)).toEqual([sandboxId, older.id]);
    expect(server.requests.at(-1)?.path).toContain(`cursor=${sandboxId}`);
  });

  it("are destroyed", async () => {
    await server.client.sandboxes.destroy(sandboxId);
    expect(server.requests.at(-1)).toMatchObject({ method: "DELETE", path: `/v1/sandboxes/${sandboxId}` });
  });
});

describe("errors", () => {
  it("carry the server's code, message, suggestion and request id", async () => {
    server.answers.push({
      status: 503,
      body: { error: { code: "no_capacity", message: "Full.", suggestion: "Wait.", request_id: "r1" } },
    });
    await expect(server.client.sandboxes.create()).rejects.toMatchObject({
      code: "no_capacity",
      message: "Full.",
      suggestion: "Wait.",
      details: { request_id: "r1" },
    });
  });

  it("of a code this client does not know stay readable", async () => {
    server.answers.push({ status: 418, body: { error: { code: "teapot", message: "Short and stout." } } });
    await expect(server.client.sandboxes.get(sandboxId)).rejects.toMatchObject({
      code: "internal",
      message: "Short and stout. (teapot)",
      details: { code: "teapot" },
    });
  });

  it("of something that is no Wrenn server name what it answered", async () => {
    server.answers.push({ status: 200, body: "hello" });
    await expect(server.client.sandboxes.get(sandboxId)).rejects.toThrow("not of the expected form");
  });

  it("tell a server that is not there from everything else", async () => {
    const client = new WrennClient({ url: "http://127.0.0.1:1", apiKey });
    await expect(client.sandboxes.list()).rejects.toMatchObject({ code: "server_unreachable", retryable: true });
  });

  it("leave an abort what it is", async () => {
    const reason = new Error("enough");
    await expect(server.client.sandboxes.list({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });
});
