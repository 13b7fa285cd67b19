import { getEventListeners } from "node:events";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { checkHealth, Sandbox, TimeoutError } from "./index.ts";
import { sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;

beforeEach(async () => {
  server = await ServerStandIn.start({});
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await server.stop();
});

const away = { status: 503, body: { error: { code: "host_unavailable", message: "The agent is away." } } };

/** Paths and methods that the server has seen. */
function seen(): string[] {
  return server.requests.map(({ method, path }) => `${method} ${path.split("?")[0]}`);
}

describe("a request that may be sent twice", () => {
  it("is tried again when the connection is cut, and when the server says that it passes", async () => {
    server.answers.push("cut", away);
    expect((await Sandbox.connect(sandboxId, server.api)).id).toBe(sandboxId);
    expect(server.requests).toHaveLength(3);
  });

  it("is tried no more often than was said", async () => {
    server.answers.push(away, away, away);
    await expect(Sandbox.connect(sandboxId, { ...server.api, maxRetries: 1 })).rejects.toMatchObject({
      name: "ConnectionError",
      code: "host_unavailable",
    });
    expect(server.requests).toHaveLength(2);
  });

  it("waits for as long as the server asks", async () => {
    server.answers.push({ status: 429, body: {}, headers: { "retry-after": "1" } });
    const start = performance.now();
    await Sandbox.destroy(sandboxId, server.api);
    // Timers may be a little early.
    expect(performance.now() - start).toBeGreaterThan(990);
    expect(server.requests).toHaveLength(2);
  });

  it("does not wait for a server that asks for minutes", async () => {
    server.answers.push({ ...away, headers: { "retry-after": new Date(Date.now() + 600_000).toUTCString() } });
    await expect(Sandbox.connect(sandboxId, server.api)).rejects.toMatchObject({ code: "host_unavailable" });
    expect(server.requests).toHaveLength(1);
  });

  it("is not tried again when it was wrong", async () => {
    server.answers.push({ status: 404, body: { error: { code: "sandbox_not_found", message: "None." } } });
    await expect(Sandbox.destroy(sandboxId, server.api)).rejects.toMatchObject({ name: "SandboxNotFoundError" });
    expect(server.requests).toHaveLength(1);
  });

  it("is a destroy that has succeeded when the sandbox is gone at the second try", async () => {
    const gone = { status: 404, body: { error: { code: "sandbox_not_found", message: "The sandbox is destroyed." } } };
    server.answers.push("cut", gone);
    await Sandbox.destroy(sandboxId, server.api);
    expect(server.requests).toHaveLength(2);
  });

  it("is a destroy by who holds the sandbox, however often", async () => {
    const gone = { status: 404, body: { error: { code: "sandbox_not_found", message: "The sandbox is destroyed." } } };
    const sandbox = await Sandbox.connect(sandboxId, server.api);
    server.answers.push(gone);
    await expect(sandbox.destroy()).resolves.toBeUndefined();
    server.answers.push(gone);
    await expect(Sandbox.destroy(sandboxId, server.api)).rejects.toMatchObject({ name: "SandboxNotFoundError" });
  });

  it("includes a create, because all tries have one idempotency key", async () => {
    server.answers.push("cut", away, { status: 201, body: { ...server.sandbox, access_token: "secret" } });
    await Sandbox.create(server.api);
    const keys = server.requests.map(({ headers }) => headers["idempotency-key"]);
    expect(keys).toHaveLength(3);
    expect(new Set(keys).size).toBe(1);
    expect(keys[0]).toMatch(/^[0-9a-f]{32}$/);
  });

  it("has a key of its own for each create", async () => {
    const created = { status: 201, body: { ...server.sandbox, access_token: "secret" } };
    server.answers.push(created, created, created);
    await Sandbox.create(server.api);
    await Sandbox.create(server.api);
    await Sandbox.create({ ...server.api, idempotencyKey: "mine" });
    const keys = server.requests.map(({ headers }) => headers["idempotency-key"]);
    expect(new Set(keys).size).toBe(3);
    expect(keys[2]).toBe("mine");
  });

  it("is not a create that finds no room", async () => {
    server.answers.push({ status: 503, body: { error: { code: "no_capacity", message: "Full." } } });
    await expect(Sandbox.create(server.api)).rejects.toMatchObject({ name: "CapacityError" });
    expect(server.requests).toHaveLength(1);
  });
});

describe("what could be done twice", () => {
  it("is never sent a second time: start, input, signal, write, move", async () => {
    const sandbox = await Sandbox.connect(sandboxId, server.api);
    server.requests.length = 0;
    const attempts = [
      () => sandbox.commands.run("true"),
      () => sandbox.commands.kill(7),
      () => sandbox.files.write("a", "b"),
      () => sandbox.files.move("a", "b"),
      () => sandbox.files.makeDirectory("a"),
    ];
    for (const attempt of attempts) {
      server.answers.push("cut");
      await expect(attempt()).rejects.toMatchObject({ name: "ConnectionError", retryable: true });
    }
    expect(seen().filter((request) => request.startsWith("POST"))).toEqual([
      "POST /process.Process/Start",
      "POST /process.Process/SendSignal",
      "POST /files",
      "POST /filesystem.Filesystem/Move",
      "POST /filesystem.Filesystem/MakeDir",
    ]);
  });
});

describe("time", () => {
  it("that is up is an error of its own, and says of what", async () => {
    server.answers.push("none");
    const error: unknown = await Sandbox.connect(sandboxId, { ...server.api, requestTimeoutMs: 50 }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(TimeoutError);
    expect(error).toMatchObject({ code: "response_timeout", retryable: true });
    expect((error as Error).message).toBe(`GET /v1/sandboxes/${sandboxId} was not answered within 50 ms.`);
  });

  it("of a call is stronger than that of the connection", async () => {
    const sandbox = await Sandbox.connect(sandboxId, { ...server.api, requestTimeoutMs: 600_000 });
    server.answers.push("none", "none");
    await expect(sandbox.refresh({ requestTimeoutMs: 50 })).rejects.toBeInstanceOf(TimeoutError);
    await expect(sandbox.files.stat("/", { requestTimeoutMs: 50 })).rejects.toBeInstanceOf(TimeoutError);
  });

  it("counts for all tries together", async () => {
    server.answers.push(away, "none");
    await expect(Sandbox.connect(sandboxId, { ...server.api, requestTimeoutMs: 500 })).rejects.toBeInstanceOf(
      TimeoutError,
    );
  });

  it("leaves no timer and no listener behind, however the call ends", async () => {
    const stop = new AbortController();
    const listeners = (): number => getEventListeners(stop.signal, "abort").length;
    const timers = countTimers();
    const sandbox = await Sandbox.connect(sandboxId, { ...server.api, signal: stop.signal });
    server.answers.push({ status: 404, body: {} });
    await sandbox.refresh({ signal: stop.signal }).catch(() => undefined);
    server.answers.push("none");
    await sandbox.refresh({ signal: stop.signal, requestTimeoutMs: 50 }).catch(() => undefined);
    server.answers.push("cut", "cut", "cut");
    await sandbox.commands.list({ signal: stop.signal }).catch(() => undefined);
    server.answers.push("none");
    const reading = sandbox.files.read("a", { signal: stop.signal });
    await vi.waitFor(() => expect(server.answers).toHaveLength(0));
    expect(listeners()).toBeGreaterThan(0);
    stop.abort();
    await expect(reading).rejects.toMatchObject({ name: "AbortError" });
    expect(listeners()).toBe(0);
    expect(countTimers()).toBeLessThanOrEqual(timers);
  });
});

function countTimers(): number {
  return process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length;
}

describe("an abort", () => {
  it("while waiting to try again ends that at once, with its reason", async () => {
    server.answers.push({ ...away, headers: { "retry-after": "20" } });
    const stop = new AbortController();
    const reason = new Error("enough");
    const connecting = Sandbox.connect(sandboxId, { ...server.api, signal: stop.signal });
    await vi.waitFor(() => expect(server.answers).toHaveLength(0));
    stop.abort(reason);
    await expect(connecting).rejects.toBe(reason);
    expect(server.requests).toHaveLength(1);
  });

  it("before the call sends nothing", async () => {
    const signal = AbortSignal.abort();
    const sandbox = await Sandbox.connect(sandboxId, server.api);
    server.requests.length = 0;
    for (const attempt of [
      () => sandbox.refresh({ signal }),
      () => sandbox.commands.run("true", { signal }),
      () => sandbox.commands.list({ signal }),
      () => sandbox.files.read("a", { signal }),
      () => sandbox.files.write("a", "b", { signal }),
      () => sandbox.files.watch("a", () => undefined, { signal }),
      () => sandbox.pty.create({ cols: 80, rows: 24, signal }),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ name: "AbortError" });
    }
    expect(server.requests).toEqual([]);
  });
});

describe("the server", () => {
  it("and the key are taken from the environment where nothing is said", async () => {
    vi.stubEnv("WRENN_API_URL", server.api.apiUrl);
    vi.stubEnv("WRENN_API_KEY", "wrn_from_the_environment");
    await Sandbox.connect(sandboxId);
    expect(server.requests[0]?.headers).toMatchObject({ "x-api-key": "wrn_from_the_environment" });
  });

  it("is asked nothing without a key, except how it is", async () => {
    vi.stubEnv("WRENN_API_KEY", "");
    const { apiUrl } = server.api;
    await expect(Sandbox.connect(sandboxId, { apiUrl })).rejects.toMatchObject({
      name: "AuthenticationError",
      suggestion: "Set WRENN_API_KEY, or give the option apiKey.",
    });
    expect(server.requests).toEqual([]);
    const health = { status: "degraded", version: "1", checks: { database: "failed", hosts: "ok" } };
    server.answers.push({ status: 503, body: health });
    expect(await checkHealth({ apiUrl })).toEqual(health);
  });

  it.each(["localhost:7070", "ftp://x", "http://", ""])("is not at %j", async (apiUrl) => {
    await expect(Sandbox.connect(sandboxId, { ...server.api, apiUrl })).rejects.toMatchObject({
      name: "InvalidRequestError",
    });
  });

  it("is reached with the fetch that was given", async () => {
    const requests: unknown[] = [];
    const mine: typeof fetch = async (input, init) => {
      requests.push(input);
      return fetch(input, init);
    };
    const sandbox = await Sandbox.connect(sandboxId, { ...server.api, fetch: mine });
    await sandbox.commands.list().catch(() => undefined);
    expect(requests).toHaveLength(2);
  });
});
