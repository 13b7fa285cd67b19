import { WrennError } from "@wrenn/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, gate, TestServer } from "../testing/test-server.ts";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});
afterEach(async () => server.stop());

/** Resolves after two more whole looks at the host: whatever was going to happen has happened. */
async function twoLooks(): Promise<void> {
  let looks = 0;
  const looked = gate();
  server.agent.beforeList = async () => {
    looks += 1;
    // The first may have been under way, and suspicions are acted on at the earliest on the second after that.
    if (looks > 6) looked.open();
  };
  await looked.opened;
}

/** As after kill -9 of the replica that was creating it. */
async function interruptedCreate(): Promise<{ uuid: string; release: () => void }> {
  const held = gate();
  const asked = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  server.post("/v1/sandboxes", {}).catch(() => undefined);
  await asked.opened;
  const [row] = await server.query<{ id: string }>("SELECT id FROM sandboxes WHERE status = 'starting'");
  return { uuid: row?.id ?? "", release: () => held.open() };
}

test("a sandbox that died is an error with the host's reason, and its host keeps what it can be recovered from", async () => {
  const { id, uuid } = await server.create();
  server.agent.kill(uuid, "guest_out_of_memory", "Out of memory and no killable processes");
  await eventually(async () => {
    expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
      status: "error",
      status_reason: { code: "guest_out_of_memory", message: "Out of memory and no killable processes" },
      recoverable: ["disk"],
      memory_backend: null,
    });
  });
  await twoLooks();
  expect(server.agent.destroys).toEqual([]);
  expect(await server.eventsOf(uuid)).toEqual(["none→starting", "starting→running", "running→error"]);
});

test("a sandbox that its host has never heard of is an error, once it has been missed twice", async () => {
  const { uuid } = await server.create();
  server.agent.sandboxes.delete(uuid);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  const [row] = await server.query("SELECT status_reason_code FROM sandboxes");
  expect(row).toEqual({ status_reason_code: "vm_died" });
});

test("a sandbox that a host forgets for one look only goes on", async () => {
  const { uuid } = await server.create();
  const kept = server.agent.sandboxes.get(uuid);
  if (kept === undefined) throw new Error("no sandbox");
  let looks = 0;
  server.agent.beforeList = async () => {
    looks += 1;
    if (looks % 2 === 1) server.agent.sandboxes.delete(uuid);
    else server.agent.sandboxes.set(uuid, kept);
  };
  await eventually(() => expect(looks).toBeGreaterThan(8));
  expect(await server.eventsOf(uuid)).toEqual(["none→starting", "starting→running"]);
});

test("a sandbox that a host still has after its end is destroyed once it has been seen twice", async () => {
  const { id, uuid } = await server.create();
  await server.call("DELETE", `/v1/sandboxes/${id}`);
  server.agent.plant(uuid, new Date());
  await eventually(() => expect(server.agent.destroys).toEqual([uuid, uuid]));
});

test("a sandbox that is only being created is nobody's orphan", async () => {
  const { uuid, release } = await interruptedCreate();
  await twoLooks();
  expect(server.agent.destroys).toEqual([]);
  release();
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("running"));
});

test("a create that nobody completes is completed when the host has the sandbox", async () => {
  const { uuid } = await interruptedCreate();
  const sandbox = server.agent.sandboxes.get(uuid);
  if (sandbox === undefined) throw new Error("no sandbox");
  server.agent.plant(uuid, new Date());
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("running"));
});

test("a create that nobody completes is an error past its deadline when the host has nothing", async () => {
  const { uuid } = await interruptedCreate();
  server.agent.sandboxes.delete(uuid);
  await twoLooks();
  expect(await server.statusOf(uuid)).toBe("starting");
  await server.query("UPDATE sandboxes SET deadline_at = now() WHERE id = $1", [uuid]);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  const [row] = await server.query("SELECT status_reason_code FROM sandboxes");
  expect(row).toEqual({ status_reason_code: "create_interrupted" });
});

test("a destroy that nobody completes is completed past its deadline", async () => {
  const { uuid } = await server.create();
  await server.query(
    "UPDATE sandboxes SET status = 'stopping', version = version + 1, deadline_at = now() + interval '1 hour' WHERE id = $1",
    [uuid],
  );
  await twoLooks();
  expect(await server.statusOf(uuid)).toBe("stopping");
  await server.query("UPDATE sandboxes SET deadline_at = now() WHERE id = $1", [uuid]);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("stopped"));
  expect(server.agent.destroys).toEqual([uuid]);
});

test("a host that is away for a moment changes nothing; away for long, its sandboxes are missing until it is back", async () => {
  const { id, uuid } = await server.create();
  await server.agent.pause();
  await eventually(async () => {
    const [host] = await server.query("SELECT status, contact_lost_at FROM hosts");
    expect(host?.["contact_lost_at"]).toBeInstanceOf(Date);
  });
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("missing"));
  expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
    status_reason: { code: "host_unavailable" },
  });
  await server.agent.resume();
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("running"));
  expect((await server.call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({ status_reason: null });
  expect(await server.eventsOf(uuid)).toEqual([
    "none→starting",
    "starting→running",
    "running→missing",
    "missing→running",
  ]);
});

test("a create that nobody completes is an error when its host stays away, and what the host has made of it is removed", async () => {
  const { uuid, release } = await interruptedCreate();
  await server.stopReplicas();
  release();
  await server.agent.pause();
  // As the replica that was killed has left it.
  await server.query("UPDATE sandboxes SET status = 'starting', version = 1, deadline_at = now() WHERE id = $1", [
    uuid,
  ]);
  await server.query("DELETE FROM sandbox_events WHERE sandbox_id = $1 AND version > 1", [uuid]);
  server.agent.plant(uuid, new Date());
  await server.startReplica();
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  await server.agent.resume();
  await eventually(() => expect(server.agent.sandboxes.has(uuid)).toBe(false));
});

test("a sandbox that died while its host was away is an error when the host is back", async () => {
  const { uuid } = await server.create();
  await server.agent.pause();
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("missing"));
  server.agent.kill(uuid, "vm_died", "the engine is gone");
  await server.agent.resume();
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
});

test("replicas do not double the work", async () => {
  await server.startReplica();
  const { uuid } = await server.create();
  server.agent.kill(uuid, "vm_died", "gone");
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  await twoLooks();
  expect(await server.eventsOf(uuid)).toEqual(["none→starting", "starting→running", "running→error"]);
});

test("a call that is never answered stops neither later rounds nor the requests of users", async () => {
  await server.stopReplicas();
  const { url } = await server.startReplica({ bounds: { roundMs: 150 } });
  const { id, uuid } = await server.create({});
  const never = gate();
  let looks = 0;
  server.agent.beforeList = async () => {
    looks += 1;
    if (looks === 1) await never.opened;
  };
  await eventually(() => expect(looks).toBeGreaterThan(3));
  expect(server.logged.some((line) => line.includes("was stuck and given up"))).toBe(true);
  server.agent.kill(uuid, "vm_died", "gone");
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  expect((await server.call("DELETE", `/v1/sandboxes/${id}`, { url })).status).toBe(204);
  never.open();
});

test("a sandbox that stands still for a snapshot has not died, and a paused one is not gone", async () => {
  const { id, uuid } = await server.create();
  const held = gate();
  server.agent.beforeSnapshot = async () => held.opened;
  const taking = server.post("/v1/snapshots", { sandbox_id: id });
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("snapshotting"));
  // Longer than anybody should take: it is still the host that says when it is over.
  await server.query("UPDATE sandboxes SET deadline_at = now()");
  await twoLooks();
  expect(await server.statusOf(uuid)).toBe("snapshotting");
  held.open();
  expect((await taking).status).toBe(201);
  await server.call("POST", `/v1/sandboxes/${id}/pause`);
  await twoLooks();
  expect(await server.statusOf(uuid)).toBe("paused");
  expect(server.agent.destroys).toEqual([]);
});

test("a sandbox that was thought to be lost or paused, and runs, is running again", async () => {
  const { uuid } = await server.create();
  const kept = server.agent.sandboxes.get(uuid);
  if (kept === undefined) throw new Error("no sandbox");
  server.agent.sandboxes.delete(uuid);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  server.agent.sandboxes.set(uuid, kept);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("running"));
  await server.query("UPDATE sandboxes SET status = 'paused', version = version + 1");
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("running"));
  expect(server.agent.destroys).toEqual([]);
});

test("what a create left on its host though it had failed is removed", async () => {
  server.agent.beforeCreate = async () => {
    throw new WrennError("engine_failed");
  };
  expect((await server.post("/v1/sandboxes", {})).status).toBe(500);
  const [row] = await server.query<{ id: string }>("SELECT id FROM sandboxes");
  server.agent.plant(row?.id ?? "", new Date());
  await eventually(() => expect(server.agent.destroys).toEqual([row?.id]));
  expect(await server.statusOf(row?.id ?? "")).toBe("error");
});
