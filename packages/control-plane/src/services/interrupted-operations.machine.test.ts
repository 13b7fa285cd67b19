import { hostAgentProto } from "@wrenn/contract";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, gate, TestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

let server: TestServer;

beforeEach(async () => {
  server = await TestServer.start({ drainMs: 1 });
});
afterEach(async () => server.stop());

type Verb = "pause" | "resume" | "fork" | "recover" | "snapshot";

const during: Record<Verb, string> = {
  pause: "pausing",
  resume: "resuming",
  fork: "snapshotting",
  recover: "starting",
  snapshot: "snapshotting",
};

const { RUNNING, PAUSED, DEAD } = hostAgentProto.SandboxState;
const settledStates = [RUNNING, PAUSED, DEAD];

const asks: Record<Verb, (id: string) => Promise<Answer>> = {
  pause: async (id) => server.call("POST", `/v1/sandboxes/${id}/pause`),
  resume: async (id) => server.call("POST", `/v1/sandboxes/${id}/resume`),
  fork: async (id) => server.post(`/v1/sandboxes/${id}/fork`, { count: 2 }),
  recover: async (id) => server.post(`/v1/sandboxes/${id}/recover`, { from: "disk" }),
  snapshot: async (id) => server.post("/v1/snapshots", { sandbox_id: id, name: "cut-short" }),
};

/** Brings the sandbox to where the operation begins. */
async function prepared(verb: Verb): Promise<{ id: string; uuid: string }> {
  const sandbox = await server.create();
  if (verb === "resume") await asks.pause(sandbox.id);
  if (verb === "recover") {
    server.agent.kill(sandbox.uuid, "vm_died", "gone");
    await eventually(async () => {
      if ((await server.statusOf(sandbox.uuid)) !== "error") throw new Error("not found dead yet");
    });
  }
  return sandbox;
}

/** Stops the server in the middle of what it has begun, and starts another once the host has done its part, or has failed to. */
async function interrupted(verb: Verb, outcome: string): Promise<string> {
  const { id, uuid } = await prepared(verb);
  const asked = gate();
  const held = gate();
  const hold = async (): Promise<void> => {
    asked.open();
    await held.opened;
    if (outcome === "fails") throw new Error("it could not");
  };
  const { agent } = server;
  agent.beforePause = agent.beforeResume = agent.beforeFork = agent.beforeRecover = agent.beforeSnapshot = hold;
  const asking = asks[verb](id).catch(() => undefined);
  await asked.opened;
  await server.stopReplicas();
  await asking;
  expect(await server.statusOf(uuid)).toBe(during[verb]);
  // As after kill -9, when nobody could say any more that nobody works on it.
  await server.query("UPDATE sandboxes SET deadline_at = now() + interval '1 hour' WHERE deadline_at IS NOT NULL");
  await server.startReplica();
  held.open();
  await eventually(() => expect(settledStates).toContain(agent.sandboxes.get(uuid)?.state));
  await server.query("UPDATE sandboxes SET deadline_at = now() WHERE deadline_at IS NOT NULL");
  await server.query("UPDATE templates SET deadline_at = now() WHERE deadline_at IS NOT NULL");
  return uuid;
}

test.each<[Verb, string, string]>([
  ["pause", "does", "paused"],
  ["pause", "fails", "running"],
  ["resume", "does", "running"],
  ["resume", "fails", "paused"],
  ["recover", "does", "running"],
  ["recover", "fails", "error"],
])("a %s whose server is gone, and which the host %s, ends %s by another server", async (verb, outcome, status) => {
  const uuid = await interrupted(verb, outcome);
  await eventually(async () => expect(await server.statusOf(uuid)).toBe(status));
});

test.each(["does", "fails"])(
  "a fork whose server is gone, and which the host %s, leaves copies that run or none",
  async (outcome) => {
    const uuid = await interrupted("fork", outcome);
    await eventually(async () => {
      expect(await server.statusOf(uuid)).toBe("running");
      const copies = await server.query("SELECT status FROM sandboxes WHERE id <> $1", [uuid]);
      const running = copies.filter((copy) => copy["status"] === "running");
      const over = copies.filter((copy) => copy["status"] === "stopped" || copy["status"] === "error");
      expect([copies.length, running.length + over.length]).toEqual([2, 2]);
      expect(running.length % 2).toBe(0);
      expect(server.agent.sandboxes.size - 1).toBe(running.length);
    });
  },
);

test.each([
  ["does", 200, "ready"],
  ["fails", 404, "deleted"],
])(
  "a snapshot whose server is gone, and which the host %s, is there (%d) or gone by another server",
  async (...ends) => {
    const [outcome, found, status] = ends;
    const uuid = await interrupted("snapshot", outcome);
    await eventually(async () => {
      expect(await server.statusOf(uuid)).toBe("running");
      expect((await server.call("GET", "/v1/snapshots/cut-short")).status).toBe(found);
      expect(await server.query("SELECT status FROM templates WHERE type = 'snapshot'")).toEqual([{ status }]);
    });
  },
);
