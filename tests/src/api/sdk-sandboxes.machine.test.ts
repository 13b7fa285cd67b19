import { checkHealth, Sandbox, type SandboxInfo, SandboxNotFoundError, WrennError } from "@wrenn/sdk";
import { describe, expect, test } from "vitest";
import { useSdk } from "../harness/sdk.ts";

const sdk = useSdk();

async function listAll(options: Parameters<typeof Sandbox.list>[0] = {}): Promise<SandboxInfo[]> {
  const all = [];
  for await (const info of Sandbox.list({ ...sdk().options, ...options })) all.push(info);
  return all;
}

const unknownId = "sb-01900000-0000-7000-8000-000000000000";

describe("a sandbox", () => {
  test("is created as asked for, found, and destroyed with all that runs in it", async () => {
    const { options } = sdk();
    const metadata = { app: "a=b&c", owner: "Jörg" };
    const sandbox = await Sandbox.create({ ...options, memoryMib: 256, metadata, envs: { A: "1" } });
    expect(sandbox.info).toMatchObject({ status: "running", template: "minimal", vcpus: 1, memoryMib: 256, metadata });
    expect(sandbox.info.createdAt).toBeInstanceOf(Date);
    expect(sandbox.info).not.toHaveProperty("accessToken");
    const found = await Sandbox.connect(sandbox.id, options);
    expect(found.info).toEqual(sandbox.info);
    expect((await listAll()).map(({ id }) => id)).toContain(sandbox.id);
    await sandbox.destroy();
    expect((await sandbox.refresh()).status).toBe("stopped");
    expect((await listAll()).map(({ id }) => id)).not.toContain(sandbox.id);
    // Doing it twice is fine.
    await sandbox.destroy();
  });

  test("is destroyed at the end of the block that uses it, also when that fails", async () => {
    let id = "";
    const use = async (): Promise<void> => {
      await using sandbox = await Sandbox.create(sdk().options);
      ({ id } = sandbox);
      throw new Error("the work failed");
    };
    await expect(use()).rejects.toThrow("the work failed");
    expect((await Sandbox.connect(id, sdk().options)).info.status).toBe("stopped");
  });

  test("with one idempotency key is made once", async () => {
    const options = { ...sdk().options, idempotencyKey: "one-of-them" };
    const [first, second] = await Promise.all([Sandbox.create(options), Sandbox.create(options)]);
    expect(second.id).toBe(first.id);
    expect((await Sandbox.create(options)).id).toBe(first.id);
    await expect(Sandbox.create({ ...options, memoryMib: 1_024 })).rejects.toMatchObject({
      name: "ConflictError",
      code: "idempotency_conflict",
    });
    await first.destroy();
  });

  test("is changed and pinged", async () => {
    const sandbox = await Sandbox.create({ ...sdk().options, timeoutMs: 60_000, metadata: { a: "1" } });
    expect(sandbox.info).toMatchObject({ timeoutMs: 60_000, onTimeout: "pause" });
    const expiresAt = sandbox.info.expiresAt?.getTime() ?? 0;
    expect(Math.abs(expiresAt - Date.now() - 60_000)).toBeLessThan(30_000);
    await sandbox.update({ metadata: { b: "2" }, timeoutMs: 120_500 });
    expect(sandbox.info).toMatchObject({ metadata: { b: "2" }, timeoutMs: 121_000 });
    await sandbox.ping();
    expect((await sandbox.refresh()).expiresAt?.getTime()).toBeGreaterThan(expiresAt);
    await sandbox.update({ timeoutMs: null });
    expect(sandbox.info).toMatchObject({ timeoutMs: null, expiresAt: null, metadata: { b: "2" } });
    await expect(sandbox.update({})).rejects.toMatchObject({ name: "InvalidRequestError" });
    await sandbox.destroy();
  });

  test("tells what it uses, and what its console says", async () => {
    const metrics = await sdk().box.metrics();
    expect(metrics.measuredAt).toBeInstanceOf(Date);
    expect(metrics.cpuCount).toBeGreaterThan(0);
    expect(metrics.memoryTotalBytes).toBeGreaterThan(metrics.memoryUsedBytes);
    const console = await sdk().box.console();
    expect(await sdk().box.console({ offset: console.nextOffset })).toMatchObject({ text: "" });
  });

  test("answers HTTP on its ports, and a port where nothing listens is told apart", async () => {
    const response = await sdk().box.fetch(8080, "/path?q=1", { headers: { "x-mine": "1" } });
    expect([response.status, await response.json()]).toEqual([200, { path: "/path" }]);
    await expect(sdk().box.fetch(9, "/")).rejects.toMatchObject({ name: "GuestError", code: "port_closed" });
  });
});

describe("a list", () => {
  test("is filtered, and goes on over pages", async () => {
    const metadata = { batch: "of the list test" };
    const made = await Promise.all(
      [1, 2, 3].map(async () => Sandbox.create({ ...sdk().options, metadata, memoryMib: 128 })),
    );
    const ids = made.map(({ id }) => id).toSorted();
    expect((await listAll({ metadata })).map(({ id }) => id).toSorted()).toEqual(ids);
    expect(await listAll({ metadata, limit: 2 })).toHaveLength(2);
    expect(await listAll({ metadata, template: "minimal", status: ["running", "missing"] })).toHaveLength(3);
    expect(await listAll({ metadata, status: "error" })).toEqual([]);
    await Promise.all(made.map(async (sandbox) => sandbox.destroy()));
    expect(await listAll({ metadata })).toEqual([]);
    expect(await listAll({ metadata, status: "stopped" })).toHaveLength(3);
  });
});

describe("an error", () => {
  test("has a class, a code, a status, what to do and the id of its request", async () => {
    const error: unknown = await Sandbox.connect(unknownId, sdk().options).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(SandboxNotFoundError);
    expect(error).toBeInstanceOf(WrennError);
    expect(error).toMatchObject({
      name: "SandboxNotFoundError",
      code: "sandbox_not_found",
      status: 404,
      retryable: false,
      suggestion: "List the sandboxes of your team to see which there are.",
    });
    expect((error as WrennError).requestId).toMatch(/.+/);
    expect(sdk().server.logged.some((line) => line.includes((error as WrennError).requestId ?? "none"))).toBe(true);
  });

  test("tells an unknown key, a foreign id, bad sizes and an unknown template apart", async () => {
    const { options } = sdk();
    const apiKey = `wrn_${"0".repeat(40)}`;
    await expect(Sandbox.create({ ...options, apiKey })).rejects.toMatchObject({ name: "AuthenticationError" });
    await expect(Sandbox.connect("usr-1", options)).rejects.toMatchObject({ code: "invalid_id" });
    await expect(Sandbox.destroy(unknownId, options)).rejects.toMatchObject({ name: "SandboxNotFoundError" });
    await expect(Sandbox.create({ ...options, memoryMib: 1 })).rejects.toMatchObject({
      name: "InvalidRequestError",
      code: "invalid_request",
    });
    await expect(Sandbox.create({ ...options, template: "no-such" })).rejects.toMatchObject({
      name: "InvalidRequestError",
      code: "template_not_found",
    });
  });

  test("of what is asked of a sandbox that is gone says so, in every way of asking", async () => {
    const gone = await Sandbox.create(sdk().options);
    await gone.destroy();
    for (const attempt of [
      () => gone.commands.run("true"),
      () => gone.commands.list(),
      () => gone.files.read("/etc/passwd"),
      () => gone.files.write("x", "y"),
      () => gone.files.stat("/"),
      () => gone.files.watch("/", () => undefined),
      () => gone.pty.create({ cols: 80, rows: 24 }),
      () => gone.fetch(8080, "/"),
    ]) {
      await expect(attempt()).rejects.toMatchObject({
        name: "ConflictError",
        code: "sandbox_state_conflict",
        details: { status: "stopped" },
      });
    }
  });
});

test("the server says how it is, without a key", async () => {
  expect(await checkHealth({ apiUrl: sdk().server.url })).toMatchObject({ status: "ok" });
});
