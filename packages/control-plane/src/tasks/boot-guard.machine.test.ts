import { hostAgentProto, newId } from "@wrenn/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, TestServer } from "../testing/test-server.ts";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start();
});
afterEach(async () => server.stop());

/** Resolves after several whole looks at the host: whatever was going to happen has happened. */
async function severalLooks(): Promise<void> {
  let looks = 0;
  server.agent.beforeList = async () => {
    looks += 1;
  };
  await eventually(() => expect(looks).toBeGreaterThan(6));
}

async function reconciliation(): Promise<[number, unknown]> {
  const { status, body } = await server.call("GET", "/health/ready");
  return [status, (body as unknown as { checks: { reconciliation: string } }).checks.reconciliation];
}

async function heldBack(kind: string): Promise<string | undefined> {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return new RegExp(`wrenn_reconciliation_held_back\\{kind="${kind}"\\} (\\d+)`).exec(metrics)?.[1];
}

/** An operator has looked, and starts the server once with WRENN_TRUST_DATABASE=1. */
async function trustDatabase(): Promise<void> {
  await server.stopReplicas();
  await server.startReplica({ config: { trustDatabase: true } });
}

test("a database that has never heard of a host's sandboxes does not touch them, says so, and obeys the operator", async () => {
  const own = await server.create();
  const unknown = [newId("sandbox"), newId("sandbox")];
  // Older than the database's acquaintance with the host, and younger: as after a backup of it was restored.
  for (const [at, id] of unknown.entries()) server.agent.plant(id, new Date(Date.now() - at * 3_600_000));
  await eventually(async () => expect(await reconciliation()).toEqual([200, "held_back"]));
  await severalLooks();
  expect(server.agent.destroys).toEqual([]);
  const reports = server.logged.filter((line) => line.includes("never heard of"));
  expect(reports).toHaveLength(1);
  for (const id of unknown) expect(reports[0]).toContain(id);
  expect(await heldBack("unknown_sandboxes")).toBe("2");
  await trustDatabase();
  await eventually(() => expect(server.agent.destroys.toSorted()).toEqual(unknown.toSorted()));
  await eventually(async () => expect(await reconciliation()).toEqual([200, "ok"]));
  expect(await server.statusOf(own.uuid)).toBe("running");
});

test("a host that reports none of many sandboxes loses none of them, and they run on when it has them again", async () => {
  const sandboxes = await Promise.all(Array.from({ length: 4 }, async () => server.create()));
  const [frozen] = sandboxes;
  await server.call("POST", `/v1/sandboxes/${frozen?.id ?? ""}/pause`);
  const kept = new Map(server.agent.sandboxes);
  // As a host agent that was started with another directory.
  server.agent.sandboxes.clear();
  await eventually(async () => expect(await reconciliation()).toEqual([200, "held_back"]));
  await severalLooks();
  const statuses = async (): Promise<unknown[]> =>
    Promise.all(sandboxes.map(async ({ uuid }) => server.statusOf(uuid)));
  expect(await statuses()).toEqual(["paused", "missing", "missing", "missing"]);
  expect(await heldBack("lost_sandboxes")).toBe("4");
  expect(server.logged.filter((line) => line.includes("refusing to give them up"))).toHaveLength(1);
  for (const [id, sandbox] of kept) server.agent.sandboxes.set(id, sandbox);
  await eventually(async () => expect(await statuses()).toEqual(["paused", "running", "running", "running"]));
  await eventually(async () => expect(await reconciliation()).toEqual([200, "ok"]));
});

test("sandboxes that most of a host's have been lost with are given up when the operator says so", async () => {
  const sandboxes = await Promise.all(Array.from({ length: 3 }, async () => server.create()));
  server.agent.sandboxes.clear();
  await eventually(async () => expect(await reconciliation()).toEqual([200, "held_back"]));
  await trustDatabase();
  for (const { uuid } of sandboxes) await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
});

test("after a start with a host that is full of the database's own sandboxes, each is what the host says", async () => {
  const [running, paused, dead] = await Promise.all([server.create(), server.create(), server.create()]);
  await server.stopReplicas();
  const { PAUSED } = hostAgentProto.SandboxState;
  // What has happened while no server was there: a host that heard of nobody has paused one, and one has died.
  Object.assign(server.agent.sandboxes.get(paused.uuid) ?? {}, { state: PAUSED, memoryBackend: "" });
  server.agent.kill(dead.uuid, "vm_died", "gone", ["disk", "last_pause"]);
  const { url } = await server.startReplica();
  const show = async (id: string): Promise<unknown> => (await server.call("GET", `/v1/sandboxes/${id}`, { url })).body;
  await eventually(async () => {
    expect(await show(running.id)).toMatchObject({ status: "running" });
    expect(await show(paused.id)).toMatchObject({ status: "paused", memory_backend: null });
    expect(await show(dead.id)).toMatchObject({ status: "error", recoverable: ["disk", "last_pause"] });
  });
  expect((await server.call("POST", `/v1/sandboxes/${paused.id}/resume`, { url })).body).toMatchObject({
    status: "running",
  });
  expect(server.agent.destroys).toEqual([]);
});
