import { hostAgentProto, WrennError } from "@wrenn/contract";
import type { RecoverySource } from "@wrenn/contract";
import { expect, test } from "vitest";
import { eventually, useTestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

const server = useTestServer();

async function dead(recoverable: RecoverySource[]): Promise<{ id: string; uuid: string }> {
  const sandbox = await server().create();
  server().agent.kill(sandbox.uuid, "vm_died", "the engine is gone", recoverable);
  await eventually(async () => {
    expect((await server().call("GET", `/v1/sandboxes/${sandbox.id}`)).body).toMatchObject({ recoverable });
  });
  return sandbox;
}

async function recover(id: string, from: RecoverySource): Promise<Answer> {
  return server().post(`/v1/sandboxes/${id}/recover`, { from });
}

test("a dead sandbox is started again from what its owner chooses", async () => {
  const { id, uuid } = await dead(["disk", "last_pause"]);
  const { status, body } = await recover(id, "last_pause");
  expect([status, body]).toMatchObject([200, { status: "running", recoverable: [], status_reason: null }]);
  expect(server().agent.recoveries.at(-1)).toMatchObject({
    sandboxId: uuid,
    source: hostAgentProto.RecoverySource.LAST_PAUSE,
    accessToken: server().agent.creates.at(-1)?.accessToken,
  });
  expect((await server().eventsOf(uuid)).slice(-3)).toEqual(["running→error", "error→starting", "starting→running"]);
});

test("what is not kept cannot be recovered from, and what has not died need not be", async () => {
  const { id } = await dead(["disk"]);
  const refused = await recover(id, "last_pause");
  expect([refused.status, refused.body]).toMatchObject([
    409,
    { error: { code: "recovery_unavailable", details: { recoverable: ["disk"] } } },
  ]);
  const { id: running } = await server().create();
  expect((await recover(running, "disk")).body).toMatchObject({ error: { code: "sandbox_state_conflict" } });
});

test("a recovery that fails leaves what can be recovered as it was", async () => {
  const { id, uuid } = await dead(["disk", "last_pause"]);
  server().agent.beforeRecover = async () => {
    throw new WrennError("guest_boot_timeout");
  };
  const { status, body } = await recover(id, "disk");
  expect([status, body]).toMatchObject([504, { error: { code: "guest_boot_timeout" } }]);
  expect((await server().call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
    status: "error",
    status_reason: { code: "guest_boot_timeout" },
    recoverable: ["disk", "last_pause"],
  });
  server().agent.behave();
  expect((await recover(id, "disk")).status).toBe(200);
  expect(await server().statusOf(uuid)).toBe("running");
});

test("a dead sandbox occupies nothing, and is destroyed with what is kept of it", async () => {
  const { id, uuid } = await dead(["disk"]);
  expect((await server().call("DELETE", `/v1/sandboxes/${id}`)).status).toBe(204);
  expect(server().agent.sandboxes.has(uuid)).toBe(false);
});
