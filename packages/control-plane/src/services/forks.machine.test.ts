import { WrennError } from "@wrenn/contract";
import { expect, test } from "vitest";
import { eventually, useTestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

const server = useTestServer();

interface Copy {
  readonly id: string;
  readonly access_token: string;
  readonly status: string;
}

async function fork(id: string, ask: Record<string, unknown> = {}): Promise<Answer> {
  return server().post(`/v1/sandboxes/${id}/fork`, ask);
}

function copiesIn({ body }: Answer): Copy[] {
  return (body as unknown as { sandboxes: Copy[] }).sandboxes;
}

/** The statuses of all copies that were ever made of anything: they have no create of their own. */
async function copiesSince(uuids: ReadonlySet<string>): Promise<string[]> {
  const rows = await server().query<{ id: string; status: string }>("SELECT id, status FROM sandboxes ORDER BY id");
  return rows.filter(({ id }) => !uuids.has(id)).map(({ status }) => status);
}

async function known(): Promise<Set<string>> {
  return new Set((await server().query<{ id: string }>("SELECT id FROM sandboxes")).map(({ id }) => id));
}

test("copies have what the source has, or what was asked for, and tokens of their own; the source goes on", async () => {
  const source = await server().create({
    metadata: { branch: "main" },
    timeout_seconds: 600,
    on_timeout: "destroy",
    memory_mib: 256,
  });
  const same = await fork(source.id, { count: 2 });
  expect(same.status).toBe(201);
  for (const copy of copiesIn(same)) {
    expect(copy).toMatchObject({
      status: "running",
      template: "minimal",
      memory_mib: 256,
      metadata: { branch: "main" },
      timeout_seconds: 600,
      on_timeout: "destroy",
      memory_backend: "file",
    });
  }
  const tokens = new Set([source.token, ...copiesIn(same).map(({ access_token }) => access_token)]);
  expect(tokens.size).toBe(3);
  const request = server().agent.forks.at(-1);
  expect(request).toMatchObject({ sandboxId: source.uuid, accessToken: source.token });
  expect(request?.forks.map(({ accessToken }) => accessToken)).toEqual(copiesIn(same).map((copy) => copy.access_token));
  const other = copiesIn(await fork(source.id, { metadata: { branch: "try" }, timeout_seconds: null }));
  expect(other).toMatchObject([{ metadata: { branch: "try" }, timeout_seconds: null }]);
  expect((await server().eventsOf(source.uuid)).slice(-4)).toEqual([
    "running→snapshotting",
    "snapshotting→running",
    "running→snapshotting",
    "snapshotting→running",
  ]);
});

test("a paused sandbox is copied and stays paused", async () => {
  const { id, uuid } = await server().create();
  await server().call("POST", `/v1/sandboxes/${id}/pause`);
  expect(copiesIn(await fork(id))).toMatchObject([{ status: "running" }]);
  expect(await server().statusOf(uuid)).toBe("paused");
  expect((await server().eventsOf(uuid)).at(-1)).toBe("pausing→paused");
});

test("room is reserved for all copies or none", async () => {
  const { memoryMib } = server().agent;
  const { id, uuid } = await server().create();
  const before = await known();
  const [{ used } = { used: 0 }] = await server().query<{ used: number }>(
    "SELECT coalesce(sum(memory_mib + 384), 0)::int AS used FROM sandboxes WHERE status = 'running'",
  );
  await server().giveHostMemory(used + 512 + 2 * (512 + 384));
  const refused = await fork(id, { count: 3 });
  expect([refused.status, refused.body]).toMatchObject([503, { error: { code: "no_capacity" } }]);
  expect(await copiesSince(before)).toEqual([]);
  expect((await server().eventsOf(uuid)).at(-1)).toBe("starting→running");
  expect(copiesIn(await fork(id, { count: 2 }))).toHaveLength(2);
  await server().giveHostMemory(memoryMib);
});

test("when one copy fails there are none, and the source runs", async () => {
  const { id, uuid } = await server().create();
  const before = await known();
  let forked = 0;
  server().agent.beforeFork = async () => {
    forked += 1;
    if (forked === 2) throw new WrennError("guest_init_failed", { message: "the second does not answer" });
  };
  const { status, body } = await fork(id, { count: 3 });
  expect([status, body]).toMatchObject([500, { error: { code: "guest_init_failed" } }]);
  expect(await copiesSince(before)).toEqual(["stopped", "stopped", "stopped"]);
  expect((await server().call("GET", `/v1/sandboxes/${id}`)).body).toMatchObject({
    status: "running",
    status_reason: { code: "guest_init_failed" },
  });
  for (const held of server().agent.sandboxes.keys()) expect(before.has(held)).toBe(true);
  expect(await server().statusOf(uuid)).toBe("running");
});

test("copies of a fork whose answer is lost are removed, and the source runs", async () => {
  const { id, uuid } = await server().create();
  const before = await known();
  const { agent } = server();
  agent.beforeAnswer = async () => {
    await agent.pause();
    await agent.resume();
  };
  const { status, body } = await fork(id, { count: 2 });
  expect([status, body]).toMatchObject([503, { error: { code: "host_unavailable" } }]);
  agent.behave();
  await eventually(async () => {
    expect(await copiesSince(before)).toEqual(["stopped", "stopped"]);
    expect(await server().statusOf(uuid)).toBe("running");
  });
  for (const held of agent.sandboxes.keys()) expect(before.has(held)).toBe(true);
});
