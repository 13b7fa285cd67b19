import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Sandbox } from "./index.ts";
import { sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;
let sandbox: Sandbox;

beforeEach(async () => {
  server = await ServerStandIn.start({});
  sandbox = await Sandbox.connect(sandboxId, server.api);
  server.requests.length = 0;
});

afterEach(async () => {
  await server.stop();
});

const at = (below: string) => `POST /v1/sandboxes/${sandboxId}/${below}`;

/** What was asked, with its body. */
function asked(): (readonly [request: string, body: unknown])[] {
  return server.requests.map(({ method, path, body }) => [
    `${method} ${path}`,
    body === "" ? null : (JSON.parse(body) as unknown),
  ]);
}

const paused = () => ({ ...server.sandbox, status: "paused" as const, paused_at: "2026-01-01T01:00:00.000Z" });

describe("pausing and resuming", () => {
  it("asks for it, and knows the sandbox as it then is", async () => {
    server.answers.push({ status: 200, body: paused() });
    const info = await sandbox.pause();
    expect(info).toMatchObject({ status: "paused", pausedAt: new Date("2026-01-01T01:00:00.000Z") });
    expect(sandbox.info).toBe(info);
    expect(await sandbox.resume()).toMatchObject({ status: "running", pausedAt: null });
    expect(asked()).toEqual([
      [at("pause"), null],
      [at("resume"), null],
    ]);
  });

  it("works by id alone, and a resumed one can be used", async () => {
    server.answers.push({ status: 200, body: paused() });
    expect(await Sandbox.pause(sandboxId, server.api)).toMatchObject({ status: "paused" });
    const resumed = await Sandbox.resume(sandboxId, server.api);
    expect(resumed).toBeInstanceOf(Sandbox);
    expect(resumed.info.status).toBe("running");
  });

  it.each(["pause", "resume"] as const)("tries a %s again whose connection was cut", async (verb) => {
    server.answers.push("cut");
    await sandbox[verb]();
    expect(asked().map(([request]) => request)).toEqual([at(verb), at(verb)]);
  });

  it("says why it is not possible", async () => {
    const refuse = (status: number, code: string) =>
      server.answers.push({ status, body: { error: { code, message: "No." } } });
    refuse(409, "sandbox_busy");
    await expect(sandbox.pause()).rejects.toMatchObject({ name: "ConflictError", code: "sandbox_busy" });
    refuse(409, "sandbox_died");
    await expect(sandbox.resume()).rejects.toMatchObject({ name: "GuestError", code: "sandbox_died" });
    refuse(503, "host_out_of_disk");
    await expect(sandbox.pause()).rejects.toMatchObject({ name: "CapacityError" });
    expect(server.requests).toHaveLength(3);
  });
});

describe("a timeout", () => {
  it("is set in whole seconds, or to none, and again when the connection was cut", async () => {
    server.answers.push("cut", { status: 200, body: { ...server.sandbox, timeout_seconds: 2 } });
    expect((await sandbox.setTimeout(1_500)).timeoutMs).toBe(2_000);
    expect((await sandbox.setTimeout(null)).timeoutMs).toBeNull();
    expect(asked()).toEqual([
      [at("timeout"), { timeout_seconds: 2 }],
      [at("timeout"), { timeout_seconds: 2 }],
      [at("timeout"), { timeout_seconds: null }],
    ]);
  });
});

describe("a fork", () => {
  const copy = () => ({
    ...server.sandbox,
    id: "sb-01890000-0000-7000-8000-00000000000f",
    access_token: "secret",
  });

  it("answers the copies, each ready for use", async () => {
    server.answers.push({ status: 201, body: { sandboxes: [copy(), copy()] } });
    const copies = await sandbox.fork({ count: 2, metadata: { branch: "a" }, timeoutMs: null });
    expect(copies.map(({ id }) => id)).toEqual([copy().id, copy().id]);
    await copies[0]?.ping();
    expect(asked()).toEqual([
      [at("fork"), { count: 2, metadata: { branch: "a" }, timeout_seconds: null }],
      [`POST /v1/sandboxes/${copy().id}/ping`, null],
    ]);
  });

  it("leaves to the server what is not named", async () => {
    server.answers.push({ status: 201, body: { sandboxes: [copy()] } });
    await sandbox.fork();
    expect(asked()).toEqual([[at("fork"), {}]]);
  });
});

describe("a recovery", () => {
  it("starts from what was chosen", async () => {
    server.sandbox.status = "error";
    server.sandbox.recoverable = ["disk", "last_pause"];
    expect((await sandbox.refresh()).recoverable).toEqual(["disk", "last_pause"]);
    server.answers.push({ status: 200, body: { ...server.sandbox, status: "running", recoverable: [] } });
    expect(await sandbox.recover({ from: "disk" })).toMatchObject({ status: "running", recoverable: [] });
    await Sandbox.recover(sandboxId, { ...server.api, from: "last_pause" });
    expect(asked().slice(1)).toEqual([
      [at("recover"), { from: "disk" }],
      [at("recover"), { from: "last_pause" }],
    ]);
  });
});

describe("what would be done twice", () => {
  it("is never sent a second time: fork, snapshot, recover", async () => {
    const attempts = [
      () => sandbox.fork(),
      () => sandbox.createSnapshot({ name: "a", overwrite: true }),
      () => sandbox.recover({ from: "disk" }),
    ];
    for (const attempt of attempts) {
      server.answers.push("cut");
      await expect(attempt()).rejects.toMatchObject({ name: "ConnectionError", code: "server_unreachable" });
    }
    expect(asked().map(([request]) => request)).toEqual([at("fork"), "POST /v1/snapshots", at("recover")]);
  });
});
