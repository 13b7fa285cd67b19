/** What users see of a sandbox: its console, and what it uses. */
import { consoleSchema, hostAgentProto, metricsSchema, newId } from "@wrenn/contract";
import { eventually, gate } from "@wrenn/control-plane/testing";
import { expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();

async function readLogs(id: string, query = "", key = api().server.key): Promise<{ status: number; body: unknown }> {
  return api().server.call("GET", `/v1/sandboxes/${id}/logs${query}`, { key });
}

function errorCode(body: unknown): unknown {
  return (body as { error?: { code?: unknown } }).error?.code;
}

test("the console is read on from where the last answer ended", async () => {
  const { server } = api();
  const { id, uuid } = await server.create();
  expect(await readLogs(id)).toEqual({
    status: 200,
    body: { text: "", offset: 0, next_offset: 0 },
    headers: expect.anything(),
  });
  server.agent.consoles.set(uuid, "Linux version 6\n");
  const first = consoleSchema.parse((await readLogs(id)).body);
  expect(first).toEqual({ text: "Linux version 6\n", offset: 0, next_offset: 16 });
  server.agent.consoles.set(uuid, "Linux version 6\nlogin:");
  expect((await readLogs(id, `?offset=${first.next_offset}`)).body).toEqual({
    text: "login:",
    offset: 16,
    next_offset: 22,
  });
});

test("a long console comes in answers of a bounded size", async () => {
  const { server } = api();
  const { id, uuid } = await server.create();
  const printed = "a line of the console\n".repeat(40_000);
  server.agent.consoles.set(uuid, printed);
  let text = "";
  let answers = 0;
  for (let offset = 0; offset < printed.length; answers += 1) {
    const part = consoleSchema.parse((await readLogs(id, `?offset=${offset}`)).body);
    expect(part.text.length).toBeLessThanOrEqual(262_144);
    text += part.text;
    offset = part.next_offset;
  }
  expect(text).toBe(printed);
  expect(answers).toBe(4);
});

test("the console of a sandbox that starts is there before the sandbox is", async () => {
  const { server } = api();
  const asked = gate();
  const held = gate();
  server.agent.beforeCreate = async (uuid) => {
    server.agent.consoles.set(uuid, "booting\n");
    asked.open();
    await held.opened;
  };
  const creating = server.create();
  await asked.opened;
  const uuid = server.agent.creates.at(-1)?.sandboxId ?? "";
  expect((await readLogs(`sb-${uuid}`)).body).toMatchObject({ text: "booting\n" });
  held.open();
  server.agent.beforeCreate = async () => undefined;
  await creating;
});

test("the console of what is not there, is another team's, or is gone", async () => {
  const { server } = api();
  const { id, uuid } = await server.create();
  const other = await server.makeKey("others");
  expect(errorCode((await readLogs(`sb-${newId("sandbox")}`)).body)).toBe("sandbox_not_found");
  expect(errorCode((await readLogs(id, "", other)).body)).toBe("sandbox_not_found");
  expect(errorCode((await readLogs("sb-1")).body)).toBe("invalid_id");
  for (const query of ["?offset=-1", "?offset=1.5", "?offset=x", "?from=1"]) {
    expect(errorCode((await readLogs(id, query)).body)).toBe("invalid_request");
  }
  await server.agent.pause();
  expect(await readLogs(id)).toMatchObject({ status: 503, body: { error: { code: "host_unavailable" } } });
  await server.agent.resume();
  await eventually(async () => expect((await readLogs(id)).status).toBe(200));
  server.agent.kill(uuid, "guest_panicked", "It panicked.");
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("error"));
  // What it printed before it died is there for as long as its disk is.
  expect((await readLogs(id)).status).toBe(200);
  await server.call("DELETE", `/v1/sandboxes/${id}`);
  expect(await readLogs(id)).toMatchObject({
    status: 410,
    body: {
      error: { code: "console_gone", details: { status: "stopped" }, message: expect.stringContaining("stopped") },
    },
  });
});

test("metrics are what the guest measures now, in the API's words", async () => {
  const { server, sandbox } = api();
  const { status, body } = await server.call("GET", `/v1/sandboxes/${sandbox.id}/metrics`);
  expect(status).toBe(200);
  const metrics = metricsSchema.strict().parse(body);
  expect(Math.abs(Date.parse(metrics.measured_at) - Date.now())).toBeLessThan(60_000);
  expect(metrics.cpu_count).toBeGreaterThan(0);
  expect(metrics.cpu_used_percent).toBeLessThanOrEqual(100);
  expect(metrics.memory_used_bytes).toBeGreaterThan(0);
  expect(metrics.memory_used_bytes).toBeLessThan(metrics.memory_total_bytes);
  expect(metrics.disk_used_bytes).toBeLessThanOrEqual(metrics.disk_total_bytes);
});

test("metrics of what is not there, is another team's, or does not run", async () => {
  const { server, sandbox } = api();
  const ask = async (id: string, key = server.key): Promise<unknown> => {
    const { status, body } = await server.call("GET", `/v1/sandboxes/${id}/metrics`, { key });
    return [status, errorCode(body)];
  };
  expect(await ask(`sb-${newId("sandbox")}`)).toEqual([404, "sandbox_not_found"]);
  expect(await ask(sandbox.id, await server.makeKey("strangers"))).toEqual([404, "sandbox_not_found"]);
  const { id } = await server.create();
  await server.call("DELETE", `/v1/sandboxes/${id}`);
  expect(await ask(id)).toEqual([409, "sandbox_state_conflict"]);
});

test("a guest that answers nonsense instead of metrics is an error of the connection, not of the server", async () => {
  const { server } = api();
  const { realGuestAgentPort } = server.agent;
  // The stand-in for a guest answers every path with a small object.
  server.agent.realGuestAgentPort = undefined;
  const { id } = await server.create();
  const { status, body } = await server.call("GET", `/v1/sandboxes/${id}/metrics`);
  expect([status, errorCode(body)]).toEqual([503, "connection_lost"]);
  server.agent.realGuestAgentPort = realGuestAgentPort;
});

test("a sandbox whose host knows nothing of it has no console, whatever its status says", async () => {
  const { server } = api();
  const { id, uuid } = await server.create();
  const kept = server.agent.sandboxes.get(uuid);
  server.agent.sandboxes.delete(uuid);
  expect(await readLogs(id)).toMatchObject({ status: 410, body: { error: { code: "console_gone" } } });
  if (kept !== undefined) server.agent.sandboxes.set(uuid, { ...kept, state: hostAgentProto.SandboxState.RUNNING });
});
