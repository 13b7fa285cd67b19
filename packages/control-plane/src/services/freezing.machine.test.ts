import { WrennError } from "@wrenn/contract";
import { expect, test } from "vitest";
import { eventually, gate, useTestServer } from "../testing/test-server.ts";
import type { Answer } from "../testing/test-server.ts";

const server = useTestServer();

async function pause(id: string): Promise<Answer> {
  return server().call("POST", `/v1/sandboxes/${id}/pause`);
}

async function resume(id: string): Promise<Answer> {
  return server().call("POST", `/v1/sandboxes/${id}/resume`);
}

async function show(id: string): Promise<Answer["body"]> {
  return (await server().call("GET", `/v1/sandboxes/${id}`)).body;
}

function summary({ status, body }: Answer): [number, unknown] {
  const { error } = body as { error?: { code: string } };
  return [status, error?.code ?? body["status"]];
}

async function paused(ask: Record<string, unknown> = {}): Promise<{ id: string; uuid: string }> {
  const sandbox = await server().create(ask);
  expect(summary(await pause(sandbox.id))).toEqual([200, "paused"]);
  return sandbox;
}

/** Into the sandbox, as a client of the data plane. */
async function reach(id: string, url = server().url): Promise<Response> {
  return fetch(url, { headers: { "Wrenn-Sandbox-Id": id, "X-API-Key": server().key } });
}

test("a pause and a resume are two changes of status each, and the details say what the sandbox is", async () => {
  const { agent } = server();
  agent.steps = [{ step: "capture", milliseconds: 12 }];
  const { id, uuid } = await server().create({ metadata: { a: "1" }, timeout_seconds: 600 });
  expect(await show(id)).toMatchObject({ memory_backend: "file", paused_at: null, recoverable: [] });
  expect((await pause(id)).body).toMatchObject({
    status: "paused",
    memory_backend: null,
    metadata: { a: "1" },
    expires_at: null,
    paused_at: expect.any(String),
  });
  expect((await resume(id)).body).toMatchObject({
    status: "running",
    memory_backend: "uffd",
    timeout_seconds: 600,
    paused_at: null,
    expires_at: expect.any(String),
  });
  expect(await server().eventsOf(uuid)).toEqual([
    "none→starting",
    "starting→running",
    "running→pausing",
    "pausing→paused",
    "paused→resuming",
    "resuming→running",
  ]);
  // The guest agent demands the same token as before.
  expect(agent.resumes.at(-1)?.accessToken).toBe(agent.creates.at(-1)?.accessToken);
  const timed = server().logged.filter((line) => line.includes(uuid) && line.includes('"steps":{"capture":12}'));
  expect(timed.map((line) => (JSON.parse(line) as { msg: string }).msg)).toEqual([
    "sandbox created",
    "sandbox paused",
    "sandbox resumed",
  ]);
});

test("the steps of pauses and resumes are timed in the metrics", async () => {
  server().agent.steps = [{ step: "stop", milliseconds: 3 }];
  await resume((await paused()).id);
  const metrics = await (await fetch(`${server().url}/metrics`)).text();
  expect(metrics).toMatch(/wrenn_sandbox_pause_step_duration_seconds_count\{step="stop"\} [1-9]/);
  expect(metrics).toMatch(/wrenn_sandbox_resume_step_duration_seconds_count\{step="stop"\} [1-9]/);
});

test("a pause of a paused sandbox and a resume of a running one succeed and ask nobody", async () => {
  const { id, uuid } = await paused();
  expect(summary(await pause(id))).toEqual([200, "paused"]);
  await resume(id);
  expect(summary(await resume(id))).toEqual([200, "running"]);
  expect(server().agent.asked.filter((line) => line.endsWith(uuid))).toEqual([`pause ${uuid}`, `resume ${uuid}`]);
});

test("of two pauses at once the second waits for the first, of whichever replica, and what else is asked is busy", async () => {
  const { url } = await server().startReplica();
  const { id, uuid } = await server().create();
  const asked = gate();
  const held = gate();
  server().agent.beforePause = async () => {
    asked.open();
    await held.opened;
  };
  const first = pause(id);
  await asked.opened;
  const second = server().call("POST", `/v1/sandboxes/${id}/pause`, { url });
  expect(await show(id)).toMatchObject({ status: "pausing" });
  expect(summary(await resume(id))).toEqual([409, "sandbox_busy"]);
  expect(summary(await server().post(`/v1/sandboxes/${id}/fork`, {}))).toEqual([409, "sandbox_busy"]);
  expect(summary(await server().post("/v1/snapshots", { sandbox_id: id }))).toEqual([409, "sandbox_busy"]);
  held.open();
  expect(summary(await first)).toEqual([200, "paused"]);
  expect(summary(await second)).toEqual([200, "paused"]);
  expect(server().agent.asked.filter((line) => line.endsWith(uuid))).toEqual([`pause ${uuid}`]);
});

test("who waits for a pause that fails is told why, and the sandbox runs and says it too", async () => {
  const { id, uuid } = await server().create();
  const asked = gate();
  const held = gate();
  server().agent.beforePause = async () => {
    asked.open();
    await held.opened;
    throw new WrennError("host_out_of_disk", { message: "The disk has no room for 512 MiB." });
  };
  const first = pause(id);
  await asked.opened;
  const second = pause(id);
  await eventually(async () => expect(await server().statusOf(uuid)).toBe("pausing"));
  held.open();
  for (const answer of [await first, await second]) {
    expect([answer.status, answer.body]).toMatchObject([
      503,
      { error: { code: "host_out_of_disk", message: "The disk has no room for 512 MiB." } },
    ]);
  }
  expect(await show(id)).toMatchObject({
    status: "running",
    memory_backend: "file",
    status_reason: { code: "host_out_of_disk", message: "The disk has no room for 512 MiB." },
  });
  expect((await reach(id)).status).toBe(200);
});

test("a resume that fails on the host leaves the sandbox paused since when it was, and says why", async () => {
  const { id, uuid } = await paused();
  const { paused_at } = await show(id);
  server().agent.beforeResume = async () => {
    throw new WrennError("snapshot_incompatible");
  };
  expect(summary(await resume(id))).toEqual([409, "snapshot_incompatible"]);
  expect(await show(id)).toMatchObject({
    status: "paused",
    paused_at,
    status_reason: { code: "snapshot_incompatible" },
  });
  expect((await server().eventsOf(uuid)).slice(-2)).toEqual(["paused→resuming", "resuming→paused"]);
});

test("a client that leaves neither breaks nor undoes a pause", async () => {
  const { id, uuid } = await server().create();
  const asked = gate();
  const held = gate();
  server().agent.beforePause = async () => {
    asked.open();
    await held.opened;
  };
  const leaving = new AbortController();
  const request = server().call("POST", `/v1/sandboxes/${id}/pause`, { signal: leaving.signal });
  await asked.opened;
  leaving.abort();
  await expect(request).rejects.toThrow("aborted");
  held.open();
  await eventually(async () => expect(await server().statusOf(uuid)).toBe("paused"));
});

test.each([
  ["pause", "paused", true],
  ["pause", "running", false],
  ["resume", "running", true],
  ["resume", "paused", false],
] as const)("a %s whose answer is lost ends %s when the host did it: %s", async (verb, status, isDone) => {
  const { id, uuid } = verb === "pause" ? await server().create() : await paused();
  const { agent } = server();
  let isLost = false;
  const breakOff = async (): Promise<void> => {
    if (isLost) return;
    isLost = true;
    // Says nothing of what it has done: as a host agent that is killed.
    await agent.pause();
    await agent.resume();
    throw new Error("nobody hears this");
  };
  if (isDone) agent.beforeAnswer = breakOff;
  else if (verb === "pause") agent.beforePause = breakOff;
  else agent.beforeResume = breakOff;
  expect(summary(await (verb === "pause" ? pause(id) : resume(id)))).toEqual([503, "host_unavailable"]);
  await eventually(async () => expect(await server().statusOf(uuid)).toBe(status));
  agent.behave();
  expect(summary(await (status === "paused" ? resume(id) : pause(id)))[0]).toBe(200);
});

test("a resume has its room again, or is refused, and a paused sandbox occupies none", async () => {
  const { agent } = server();
  const { memoryMib } = agent;
  const { id } = await paused();
  // Together with what other tests have left running.
  const [{ used } = { used: 0 }] = await server().query<{ used: number }>(
    "SELECT coalesce(sum(memory_mib + 384), 0)::int AS used FROM sandboxes WHERE status = 'running'",
  );
  await server().giveHostMemory(used + 512 + 512 + 384);
  const other = await server().create();
  const refused = await resume(id);
  expect([refused.status, refused.body]).toMatchObject([
    503,
    { error: { code: "no_capacity", details: { vcpus: 1, memory_mib: 512 } } },
  ]);
  expect(await show(id)).toMatchObject({ status: "paused" });
  await server().call("DELETE", `/v1/sandboxes/${other.id}`);
  expect(summary(await resume(id))).toEqual([200, "running"]);
  await server().giveHostMemory(memoryMib);
});

test("nothing in a paused sandbox can be reached, and its first request after a resume is answered by every replica", async () => {
  const { url } = await server().startReplica();
  const sandbox = await server().create();
  const { id } = sandbox;
  // Connections of both replicas are kept alive.
  for (const base of [server().url, url]) expect(await (await reach(id, base)).text()).toContain("path");
  await pause(id);
  for (const base of [server().url, url]) {
    expect((await reach(id, base)).headers.get("wrenn-error")).toMatch(/^sandbox_paused$/);
  }
  const refusals = [
    await server().post(`/v1/sandboxes/${id}/exec`, { cmd: "true" }),
    await server().call("GET", `/v1/sandboxes/${id}/files?path=/`),
    await server().call("GET", `/v1/sandboxes/${id}/processes`),
    await server().call("GET", `/v1/sandboxes/${id}/metrics`),
    await server().call("POST", `/v1/sandboxes/${id}/ping`),
  ];
  for (const refusal of refusals) expect(summary(refusal)).toEqual([409, "sandbox_paused"]);
  const held = gate();
  const asked = gate();
  server().agent.beforeResume = async () => {
    asked.open();
    await held.opened;
  };
  const resuming = resume(id);
  await asked.opened;
  expect((await reach(id)).headers.get("wrenn-error")).toBe("sandbox_busy");
  held.open();
  await resuming;
  for (const base of [server().url, url]) expect((await reach(id, base)).status).toBe(200);
});

test("a request under way when its sandbox is paused ends, and a sandbox whose pause fails goes on with it", async () => {
  const { id } = await server().create();
  const stream = await fetch(`${server().url}/stream?line`, {
    headers: { "Wrenn-Sandbox-Id": id, "X-API-Key": server().key },
  });
  const text = stream.text();
  text.catch(() => undefined);
  server().agent.beforePause = async () => {
    throw new WrennError("engine_failed");
  };
  expect(summary(await pause(id))).toEqual([500, "engine_failed"]);
  expect(server().agent.guest.abandoned).not.toContain("/stream");
  server().agent.behave();
  await pause(id);
  await expect(text).rejects.toThrow("terminated");
});

test("what cannot be paused or resumed says why", async () => {
  const { id, uuid } = await server().create();
  server().agent.kill(uuid, "guest_panicked", "the kernel's last words", ["disk", "last_pause"]);
  await eventually(async () => expect(await server().statusOf(uuid)).toBe("error"));
  for (const answer of [await resume(id), await pause(id)]) {
    expect([answer.status, answer.body]).toMatchObject([
      409,
      { error: { code: "sandbox_died", details: { recoverable: ["disk", "last_pause"] } } },
    ]);
  }
  await server().call("DELETE", `/v1/sandboxes/${id}`);
  expect(summary(await pause(id))).toEqual([409, "sandbox_state_conflict"]);
  const key = await server().makeKey("strangers");
  const strange = await server().call("POST", `/v1/sandboxes/${id}/pause`, { key });
  expect(summary(strange)).toEqual([404, "sandbox_not_found"]);
});

test("a sandbox is destroyed in the middle of a pause and while it is paused", async () => {
  const { id, uuid } = await server().create();
  const asked = gate();
  const held = gate();
  server().agent.beforePause = async () => {
    asked.open();
    await held.opened;
  };
  const pausing = pause(id);
  await asked.opened;
  expect((await server().call("DELETE", `/v1/sandboxes/${id}`)).status).toBe(204);
  held.open();
  expect(summary(await pausing)).toEqual([409, "sandbox_state_conflict"]);
  expect(server().agent.sandboxes.has(uuid)).toBe(false);
  server().agent.behave();
  const other = await paused();
  expect((await server().call("DELETE", `/v1/sandboxes/${other.id}`)).status).toBe(204);
  expect(server().agent.sandboxes.has(other.uuid)).toBe(false);
});

test("a timeout is set in every status in which there is something to time, and counts from then on", async () => {
  const { id } = await paused();
  const set = async (body: unknown): Promise<Answer> => server().post(`/v1/sandboxes/${id}/timeout`, body);
  expect((await set({ timeout_seconds: 700 })).body).toMatchObject({ timeout_seconds: 700, expires_at: null });
  await resume(id);
  expect(Date.parse(String((await show(id))["expires_at"]))).toBeGreaterThan(Date.now() + 600_000);
  expect((await set({ timeout_seconds: null })).body).toMatchObject({ timeout_seconds: null, expires_at: null });
  expect(summary(await set({}))).toEqual([400, "invalid_request"]);
});
