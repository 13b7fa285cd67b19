import { newId, WrennError } from "@wrenn/contract";
import { expect, test } from "vitest";
import { eventually, gate, useTestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

const server = useTestServer();

async function take(sandboxId: string, ask: Record<string, unknown> = {}): Promise<Answer> {
  return server().post("/v1/snapshots", { sandbox_id: sandboxId, ...ask });
}

async function remove(name: string): Promise<Answer> {
  return server().call("DELETE", `/v1/snapshots/${name}`);
}

function codeOf({ status, body }: Answer): [number, unknown] {
  return [status, (body as { error?: { code: string } }).error?.code ?? null];
}

/** The template's bare id. */
function uuidOf({ body }: Answer): string {
  return String(body["id"]).slice("tpl-".length);
}

/** Status of every row that has ever had the name, oldest first. */
async function rowsOf(name: string): Promise<string[]> {
  const rows = await server().query<{ status: string }>("SELECT status FROM templates WHERE name = $1 ORDER BY id", [
    name,
  ]);
  return rows.map(({ status }) => status);
}

test("a snapshot of a running sandbox is a template of its name, and the sandbox runs on", async () => {
  const { id, uuid } = await server().create({ vcpus: 2, memory_mib: 256 });
  const taken = await take(id, { name: "after-setup" });
  expect([taken.status, taken.body]).toMatchObject([
    201,
    {
      id: expect.stringMatching(/^tpl-/),
      name: "after-setup",
      sandbox_id: id,
      vcpus: 2,
      memory_mib: 256,
      disk_mib: 5120,
      size_bytes: 31_457_280,
      host_id: expect.stringMatching(/^host-/),
      engine: "qemu-tcg",
    },
  ]);
  expect((await server().eventsOf(uuid)).slice(-2)).toEqual(["running→snapshotting", "snapshotting→running"]);
  expect((await server().call("GET", "/v1/snapshots/after-setup")).body).toEqual(taken.body);
});

test("a snapshot of a paused sandbox leaves it paused; without a name it gets one", async () => {
  const { id, uuid } = await server().create();
  await server().call("POST", `/v1/sandboxes/${id}/pause`);
  expect((await take(id)).body).toMatchObject({ name: expect.stringMatching(/^snapshot-[0-9a-f]{8}$/) });
  expect(await server().statusOf(uuid)).toBe("paused");
});

test("a sandbox of a snapshot has its sizes, its frozen guest's token goes to the host, and other sizes are refused", async () => {
  const source = await server().create({ vcpus: 2, memory_mib: 256 });
  await take(source.id, { name: "sized" });
  const created = await server().post("/v1/sandboxes", { template: "sized" });
  expect([created.status, created.body]).toMatchObject([
    201,
    { vcpus: 2, memory_mib: 256, disk_mib: 5120, template: "sized" },
  ]);
  expect(server().agent.creates.at(-1)?.templateAccessToken).toBe(source.token);
  expect(server().agent.creates.at(-1)?.accessToken).not.toBe(source.token);
  expect((await server().post("/v1/sandboxes", { template: "sized", vcpus: 2, memory_mib: 256 })).status).toBe(201);
  const refused = await server().post("/v1/sandboxes", {
    template: "sized",
    vcpus: 1,
    memory_mib: 256,
    disk_mib: 9_000,
  });
  expect([refused.status, refused.body]).toMatchObject([
    400,
    { error: { code: "invalid_request", details: { fields: [{ field: "vcpus" }, { field: "disk_mib" }] } } },
  ]);
  await server().create();
  expect(server().agent.creates.at(-1)?.templateAccessToken).toBe("");
});

test("a name that is taken is refused, and replaced when that is asked for: the new one is complete before the old one goes", async () => {
  const { id } = await server().create();
  const old = uuidOf(await take(id, { name: "release" }));
  expect(codeOf(await take(id, { name: "release" }))).toEqual([409, "snapshot_name_taken"]);
  const asked = gate();
  const held = gate();
  server().agent.beforeSnapshot = async () => {
    asked.open();
    await held.opened;
  };
  const replacing = take(id, { name: "release", overwrite: true });
  await asked.opened;
  expect((await server().call("GET", "/v1/snapshots/release")).body).toMatchObject({ id: `tpl-${old}` });
  expect((await server().post("/v1/sandboxes", { template: "release" })).status).toBe(201);
  const other = await server().create();
  expect(codeOf(await take(other.id, { name: "release", overwrite: true }))).toEqual([409, "snapshot_name_taken"]);
  expect(await server().statusOf(other.uuid)).toBe("running");
  held.open();
  const replaced = await replacing;
  expect(replaced.status).toBe(201);
  expect([...server().agent.snapshots.keys()]).not.toContain(old);
  expect(server().agent.snapshots.has(uuidOf(replaced))).toBe(true);
  expect(await rowsOf("release")).toEqual(["deleted", "ready"]);
});

test("a snapshot that fails leaves the sandbox running, the name free, and an older one of that name in place", async () => {
  const { id } = await server().create();
  const old = await take(id, { name: "kept" });
  server().agent.beforeSnapshot = async () => {
    throw new WrennError("host_out_of_disk");
  };
  expect(codeOf(await take(id, { name: "failed" }))).toEqual([503, "host_out_of_disk"]);
  expect(codeOf(await take(id, { name: "kept", overwrite: true }))).toEqual([503, "host_out_of_disk"]);
  expect((await server().call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
    status: "running",
    status_reason: { code: "host_out_of_disk" },
  });
  expect(codeOf(await server().call("GET", "/v1/snapshots/failed"))).toEqual([404, "snapshot_not_found"]);
  expect((await server().call("GET", "/v1/snapshots/kept")).body).toEqual(old.body);
  server().agent.behave();
  expect((await take(id, { name: "failed" })).status).toBe(201);
});

test.each([
  ["is published when the host has it", true, 200],
  ["is given up when the host has nothing", false, 404],
])("a snapshot whose answer is lost %s, and the sandbox runs", async (_what, isDone, found) => {
  const { id, uuid } = await server().create();
  const { agent } = server();
  const name = `lost-${String(isDone)}`;
  const breakOff = async (): Promise<void> => {
    await agent.pause();
    await agent.resume();
    throw new Error("nobody hears this");
  };
  if (isDone) agent.beforeAnswer = breakOff;
  else agent.beforeSnapshot = breakOff;
  expect(codeOf(await take(id, { name }))).toEqual([503, "host_unavailable"]);
  agent.behave();
  await eventually(async () => {
    expect(await server().statusOf(uuid)).toBe("running");
    expect(await rowsOf(name)).toEqual([isDone ? "ready" : "deleted"]);
  });
  expect((await server().call("GET", `/v1/snapshots/${name}`)).status).toBe(found);
});

test("an overwrite whose answer is lost replaces the old one once, and leaves nothing of it", async () => {
  const { id } = await server().create();
  const old = uuidOf(await take(id, { name: "twice" }));
  const { agent } = server();
  agent.beforeAnswer = async () => {
    agent.beforeAnswer = async () => undefined;
    await agent.pause();
    await agent.resume();
  };
  expect(codeOf(await take(id, { name: "twice", overwrite: true }))).toEqual([503, "host_unavailable"]);
  await eventually(async () => {
    expect(await rowsOf("twice")).toEqual(["deleted", "ready"]);
    expect(agent.snapshots.has(old)).toBe(false);
  });
});

test("a client that leaves neither breaks nor undoes a snapshot", async () => {
  const { id } = await server().create();
  const asked = gate();
  const held = gate();
  server().agent.beforeSnapshot = async () => {
    asked.open();
    await held.opened;
  };
  const leaving = new AbortController();
  const request = server().call("POST", "/v1/snapshots", {
    body: JSON.stringify({ sandbox_id: id, name: "left" }),
    headers: { "Content-Type": "application/json" },
    signal: leaving.signal,
  });
  await asked.opened;
  leaving.abort();
  await expect(request).rejects.toThrow("aborted");
  held.open();
  await eventually(async () => expect((await server().call("GET", "/v1/snapshots/left")).status).toBe(200));
});

test("a snapshot that its host cannot delete stays in the list, starts nothing any more, and is deleted later", async () => {
  const { id } = await server().create();
  const uuid = uuidOf(await take(id, { name: "stubborn" }));
  let isFailing = true;
  server().agent.beforeDeleteSnapshot = async () => {
    if (isFailing) throw new WrennError("subprocess_failed", { message: "the disk is read-only" });
  };
  expect(codeOf(await remove("stubborn"))).toEqual([500, "subprocess_failed"]);
  expect((await server().call("GET", "/v1/snapshots/stubborn")).status).toBe(200);
  expect(codeOf(await server().post("/v1/sandboxes", { template: "stubborn" }))).toEqual([404, "template_not_found"]);
  expect(codeOf(await take(id, { name: "stubborn" }))).toEqual([409, "snapshot_name_taken"]);
  isFailing = false;
  await eventually(async () => expect((await server().call("GET", "/v1/snapshots/stubborn")).status).toBe(404));
  expect(server().agent.snapshots.has(uuid)).toBe(false);
  // Nothing of it is left, and its name is free.
  expect((await take(id, { name: "stubborn" })).status).toBe(201);
});

test("deleting needs the host to have deleted it, or to say that there is none; sandboxes of it go on", async () => {
  const { id } = await server().create();
  await take(id, { name: "gone" });
  const { body } = await server().post("/v1/sandboxes", { template: "gone" });
  expect((await remove("gone")).status).toBe(204);
  expect(codeOf(await remove("gone"))).toEqual([404, "snapshot_not_found"]);
  expect((await server().call("GET", `/v1/sandboxes/${String(body["id"])}`)).body).toMatchObject({
    status: "running",
    template: "gone",
  });
  const uuid = uuidOf(await take(id, { name: "vanished" }));
  server().agent.snapshots.delete(uuid);
  expect((await remove("vanished")).status).toBe(204);
});

test("names of the platform, of others, and no names at all", async () => {
  const { id } = await server().create();
  expect(codeOf(await take(id, { name: "minimal" }))).toEqual([409, "snapshot_name_taken"]);
  expect(codeOf(await take(id, { name: "minimal", overwrite: true }))).toEqual([403, "forbidden"]);
  expect(codeOf(await remove("minimal"))).toEqual([403, "forbidden"]);
  for (const name of ["../etc", ".hidden", "a/b", "", "x".repeat(65)]) {
    expect(codeOf(await take(id, { name }))).toEqual([400, "invalid_name"]);
  }
  expect(codeOf(await remove("..%2Fetc"))).toEqual([400, "invalid_name"]);
  await take(id, { name: "mine" });
  const key = await server().makeKey("strangers");
  expect(codeOf(await server().call("GET", "/v1/snapshots/mine", { key }))).toEqual([404, "snapshot_not_found"]);
  expect(codeOf(await server().call("DELETE", "/v1/snapshots/mine", { key }))).toEqual([404, "snapshot_not_found"]);
  expect(codeOf(await server().post("/v1/snapshots", { sandbox_id: id, name: "theirs" }, { key }))).toEqual([
    404,
    "sandbox_not_found",
  ]);
  const theirs = await server().create({}, key);
  expect((await server().post("/v1/snapshots", { sandbox_id: theirs.id, name: "mine" }, { key })).status).toBe(201);
});

test("a list is newest first, each once, whatever the size of its pages", async () => {
  const key = await server().makeKey("pages");
  const { id } = await server().create({}, key);
  const names = ["one", "two", "three", "four", "five"];
  for (const name of names) await server().post("/v1/snapshots", { sandbox_id: id, name }, { key });
  const read = async (limit: number): Promise<string[]> => {
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const from: string = cursor === null ? "" : `&cursor=${cursor}`;
      const { body } = await server().call("GET", `/v1/snapshots?limit=${limit}${from}`, { key });
      const page = body as unknown as { snapshots: { name: string }[]; next_cursor: string | null };
      expect(page.snapshots.length).toBeLessThanOrEqual(limit);
      seen.push(...page.snapshots.map(({ name }) => name));
      cursor = page.next_cursor;
    } while (cursor !== null);
    return seen;
  };
  for (const limit of [1, 2, 5, 200]) expect(await read(limit)).toEqual(names.toReversed());
  expect(codeOf(await server().call("GET", "/v1/snapshots?cursor=sb-x", { key }))).toEqual([400, "invalid_id"]);
});

test("a snapshot that a host still has after its end is removed, and one that the database never had is not", async () => {
  const { id } = await server().create();
  const uuid = uuidOf(await take(id, { name: "undead" }));
  const snapshot = server().agent.snapshots.get(uuid);
  if (snapshot === undefined) throw new Error("no snapshot");
  await remove("undead");
  const foreign = newId("template");
  server().agent.snapshots.set(foreign, { ...snapshot, templateId: foreign });
  server().agent.snapshots.set(uuid, snapshot);
  await eventually(() => expect(server().agent.snapshots.has(uuid)).toBe(false));
  expect(server().agent.snapshots.has(foreign)).toBe(true);
  const metrics = await (await fetch(`${server().url}/metrics`)).text();
  expect(metrics).toContain('wrenn_reconciliation_held_back{kind="unknown_snapshots"} 1');
});
