import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Sandbox } from "./index.ts";
import { sandboxId, ServerStandIn } from "./testing/server-stand-in.ts";

let server: ServerStandIn;

beforeEach(async () => {
  server = await ServerStandIn.start({});
});

afterEach(async () => {
  await server.stop();
});

const missing = { status: 404, body: { error: { code: "snapshot_not_found", message: "None." } } };

describe("a snapshot", () => {
  it("is taken of a sandbox, and described in the words of this language", async () => {
    const sandbox = await Sandbox.connect(sandboxId, server.api);
    server.answers.push({ status: 201, body: server.snapshot });
    expect(await sandbox.createSnapshot({ name: "after-setup" })).toEqual({
      name: "after-setup",
      id: server.snapshot.id,
      teamId: server.snapshot.team_id,
      sandboxId,
      vcpus: 1,
      memoryMib: 512,
      diskMib: 5_120,
      sizeBytes: 31_457_280,
      hostId: null,
      engine: "qemu-tcg",
      engineVersion: "7.2.22",
      cpu: null,
      diskFormat: "qcow2",
      createdAt: new Date("2026-01-01T00:00:02.000Z"),
    });
    const { method, path, body = "" } = server.requests.at(-1) ?? {};
    expect([method, path]).toEqual(["POST", "/v1/snapshots"]);
    expect(JSON.parse(body)).toEqual({ sandbox_id: sandboxId, name: "after-setup" });
  });

  it("is started from without a word of its sizes", async () => {
    server.answers.push({ status: 201, body: { ...server.sandbox, template: "after-setup", access_token: "secret" } });
    const { info } = await Sandbox.create({ ...server.api, template: "after-setup", onTimeout: "pause" });
    expect(info.template).toBe("after-setup");
    expect(JSON.parse(server.requests.at(-1)?.body ?? "")).toEqual({ template: "after-setup", on_timeout: "pause" });
  });

  it("is found by its name, whatever is in that", async () => {
    server.answers.push({ status: 200, body: server.snapshot }, missing);
    expect((await Sandbox.getSnapshot("after-setup", server.api)).name).toBe("after-setup");
    await expect(Sandbox.getSnapshot("../a?b", server.api)).rejects.toMatchObject({ name: "SnapshotNotFoundError" });
    expect(server.requests.map(({ path }) => path)).toEqual(["/v1/snapshots/after-setup", "/v1/snapshots/..%2Fa%3Fb"]);
  });

  it("is deleted, and that it was deleted before is told", async () => {
    server.answers.push({ status: 204, body: null }, missing);
    await Sandbox.deleteSnapshot("after-setup", server.api);
    await expect(Sandbox.deleteSnapshot("after-setup", server.api)).rejects.toMatchObject({
      code: "snapshot_not_found",
    });
    expect(server.requests.at(-1)).toMatchObject({ method: "DELETE", path: "/v1/snapshots/after-setup" });
  });

  it("that is gone at the second try was deleted by the first", async () => {
    server.answers.push("cut", missing);
    await Sandbox.deleteSnapshot("after-setup", server.api);
    expect(server.requests).toHaveLength(2);
  });
});

describe("the list of snapshots", () => {
  it("is asked for page after page, as it is read, and no further than wanted", async () => {
    const page = { snapshots: [server.snapshot, server.snapshot], next_cursor: server.snapshot.id };
    server.answers.push({ status: 200, body: page }, { status: 200, body: page });
    const seen = [];
    for await (const { name } of Sandbox.listSnapshots({ ...server.api, limit: 3 })) {
      seen.push(name);
      expect(server.requests).toHaveLength(seen.length < 3 ? 1 : 2);
    }
    expect(seen).toHaveLength(3);
    const queries = server.requests.map(({ path }) => new URLSearchParams(path.split("?")[1]));
    expect(queries.map((query) => query.get("limit"))).toEqual(["3", "1"]);
    expect(queries.map((query) => query.get("cursor"))).toEqual([null, server.snapshot.id]);
  });
});
