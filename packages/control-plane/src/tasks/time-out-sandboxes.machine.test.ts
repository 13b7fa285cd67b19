import { once } from "node:events";
import net from "node:net";
import { WrennError } from "@wrenn/contract";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { WebSocket } from "ws";
import { CuttableLink } from "../testing/cuttable-link.ts";
import { RawClient } from "../testing/raw-client.ts";
import { TestDatabase } from "../testing/test-database.ts";
import { eventually, gate, TestServer } from "../testing/test-server.ts";

let database: TestDatabase;
let server: TestServer;

beforeAll(async () => {
  database = await TestDatabase.start({ own: true });
});
afterAll(async () => database.stop());
beforeEach(async () => {
  server = await TestServer.start({}, database);
});
afterEach(async () => server.stop());

interface TestSandbox {
  readonly id: string;
  readonly uuid: string;
}

/** One that is destroyed when nobody has used it for so many seconds. */
async function createIdle(timeoutSeconds: number): Promise<TestSandbox> {
  return server.create({ timeout_seconds: timeoutSeconds, on_timeout: "destroy" });
}

async function untilStopped({ uuid }: TestSandbox): Promise<void> {
  await eventually(async () => expect(await server.statusOf(uuid)).toBe("stopped"));
}

/** Resolves when a sandbox that was made now, and that nobody uses, has been idle for too long: so would every other have been. */
async function whileAnotherTimesOut(): Promise<void> {
  await untilStopped(await createIdle(1));
}

/** A request into the sandbox whose answer does not end. The function that is returned ends it. */
async function openStream(sandbox: TestSandbox, url = server.url): Promise<() => void> {
  const controller = new AbortController();
  const headers = { "Wrenn-Sandbox-Id": sandbox.id, "X-API-Key": server.key };
  const response = await fetch(`${url}/stream`, { headers, signal: controller.signal });
  expect(response.status).toBe(200);
  // Of an answer that nobody reads or remembers, the garbage collector ends the request.
  response.text().catch(() => undefined);
  return () => controller.abort();
}

async function openWebSocket(sandbox: TestSandbox): Promise<() => void> {
  const socket = new WebSocket(`${server.url.replace("http", "ws")}/websocket`, {
    headers: { "Wrenn-Sandbox-Id": sandbox.id, "X-API-Key": server.key },
  });
  await once(socket, "open");
  return () => socket.terminate();
}

/** Of whose body only a part has arrived, so that nothing of it has been forwarded. */
async function beginUpload(sandbox: TestSandbox): Promise<() => void> {
  const request = new RawClient(server, sandbox.id).start("/upload", {
    method: "POST",
    headers: { "Content-Length": 10 },
  });
  request.on("error", () => undefined);
  request.write("part");
  return () => request.destroy();
}

/** Two on one connection, of which the second's answer waits for the first's. */
async function pipeline(sandbox: TestSandbox): Promise<() => void> {
  const socket = net.connect(Number(new URL(server.url).port), "127.0.0.1");
  await once(socket, "connect");
  for (const requests of [1, 2]) {
    socket.write(
      `GET /stream HTTP/1.1\r\nHost: x\r\nWrenn-Sandbox-Id: ${sandbox.id}\r\nX-API-Key: ${server.key}\r\n\r\n`,
    );
    await eventually(() => expect(server.agent.guest.seen).toHaveLength(requests));
  }
  return () => socket.destroy();
}

test("a sandbox that nobody uses is destroyed after its timeout, with a reason and one event for each change", async () => {
  const untimed = await server.create();
  const patient = await server.create({ timeout_seconds: 3600 });
  const idle = await createIdle(1);
  await untilStopped(idle);
  const { body } = await server.call("GET", `/v1/sandboxes/${idle.id}`);
  expect(body).toMatchObject({ status_reason: { code: "idle_timeout" }, timeout_seconds: 1, expires_at: null });
  const events = await server.query(
    "SELECT to_status, reason_code FROM sandbox_events WHERE sandbox_id = $1 ORDER BY version",
    [idle.uuid],
  );
  expect(events).toEqual([
    { to_status: "starting", reason_code: null },
    { to_status: "running", reason_code: null },
    { to_status: "stopping", reason_code: "idle_timeout" },
    { to_status: "stopped", reason_code: "idle_timeout" },
  ]);
  expect(server.agent.destroys).toEqual([idle.uuid]);
  for (const { uuid } of [untimed, patient]) expect(await server.statusOf(uuid)).toBe("running");
});

test.each([
  ["a request", openStream],
  ["a WebSocket", openWebSocket],
  ["a request that has not arrived whole", beginUpload],
  ["a pipelined request", pipeline],
])("%s keeps its sandbox for as long as it is open, and no longer", async (_what, open) => {
  const sandbox = await createIdle(1);
  const close = await open(sandbox);
  await whileAnotherTimesOut();
  expect(await server.statusOf(sandbox.uuid)).toBe("running");
  close();
  await untilStopped(sandbox);
});

test("short requests, pings and updates each begin the timeout anew", async () => {
  const headers = { "X-API-Key": server.key };
  const uses: [TestSandbox, (id: string) => Promise<{ status: number }>][] = [
    [await createIdle(1), async (id) => fetch(server.url, { headers: { ...headers, "Wrenn-Sandbox-Id": id } })],
    [await createIdle(1), async (id) => server.call("POST", `/v1/sandboxes/${id}/ping`)],
    [await createIdle(1), async (id) => server.send("PATCH", `/v1/sandboxes/${id}`, { metadata: {} })],
  ];
  const unused = await createIdle(2);
  await eventually(async () => {
    for (const [{ id }, use] of uses) expect((await use(id)).status).toBeLessThan(300);
    expect(await server.statusOf(unused.uuid)).toBe("stopped");
  });
  for (const [{ uuid }] of uses) expect(await server.statusOf(uuid)).toBe("running");
  for (const [sandbox] of uses) await untilStopped(sandbox);
});

test("looking at a sandbox is not using it", async () => {
  const sandbox = await createIdle(1);
  await eventually(async () => {
    expect((await server.call("GET", `/v1/sandboxes/${sandbox.id}`)).body).toMatchObject({ status: "stopped" });
  });
});

test("a sandbox whose start takes longer than its timeout has all of it afterwards", async () => {
  const held = gate();
  server.agent.beforeCreate = async () => held.opened;
  const creating = server.post("/v1/sandboxes", { timeout_seconds: 1, on_timeout: "destroy" });
  const [starting] = await eventually(async () => {
    const rows = await server.query<{ id: string }>("SELECT id FROM sandboxes");
    expect(rows).toHaveLength(1);
    return rows;
  });
  await server.query("UPDATE sandboxes SET last_active_at = now() - interval '1 hour'");
  server.agent.beforeCreate = async () => undefined;
  await whileAnotherTimesOut();
  expect(await server.statusOf(starting?.id ?? "")).toBe("starting");
  held.open();
  const { body } = await creating;
  expect(Date.parse(String(body["expires_at"])) - Date.parse(String(body["started_at"]))).toBeGreaterThan(500);
  await untilStopped({ id: "", uuid: starting?.id ?? "" });
});

test("a sandbox whose host is away does not time out, and has all of its timeout when it is back", async () => {
  const sandbox = await createIdle(1);
  const close = await openStream(sandbox);
  await server.agent.pause();
  close();
  await eventually(async () => expect(await server.statusOf(sandbox.uuid)).toBe("missing"));
  await eventually(async () => {
    const [row] = await server.query("SELECT last_active_at < now() - interval '2 seconds' AS idle FROM sandboxes");
    expect(row).toEqual({ idle: true });
  });
  expect(await server.statusOf(sandbox.uuid)).toBe("missing");
  await server.agent.resume();
  await untilStopped(sandbox);
  const [times] = await server.query<{ lasted: boolean }>(
    `SELECT max(at) FILTER (WHERE to_status = 'stopping') - max(at) FILTER (WHERE to_status = 'running')
       >= interval '1 second' AS lasted FROM sandbox_events`,
  );
  expect(times).toEqual({ lasted: true });
});

test("a destroy that fails is completed later", async () => {
  let failures = 0;
  server.agent.beforeDestroy = async () => {
    failures += 1;
    if (failures <= 3) throw new WrennError("engine_failed");
  };
  const sandbox = await createIdle(1);
  await untilStopped(sandbox);
  expect(failures).toBeGreaterThan(3);
  expect((await server.eventsOf(sandbox.uuid)).slice(2)).toEqual(["running→stopping", "stopping→stopped"]);
});

describe("when a pause is what is to happen", () => {
  /** Paused when nobody has used it for a second, which is what happens unless something else is asked for. */
  async function createPausing(): Promise<TestSandbox> {
    return server.create({ timeout_seconds: 1 });
  }

  async function show({ id }: TestSandbox): Promise<unknown> {
    return (await server.call("GET", `/v1/sandboxes/${id}`)).body;
  }

  test("a sandbox that nobody uses is paused, says why, and is what it was when it is resumed", async () => {
    const sandbox = await createPausing();
    await eventually(async () => expect(await server.statusOf(sandbox.uuid)).toBe("paused"));
    expect(await show(sandbox)).toMatchObject({ status_reason: { code: "idle_timeout" }, on_timeout: "pause" });
    expect(server.agent.destroys).toEqual([]);
    await server.query("UPDATE sandboxes SET timeout_seconds = 600");
    expect((await server.call("POST", `/v1/sandboxes/${sandbox.id}/resume`)).body).toMatchObject({
      status_reason: null,
    });
    expect((await server.eventsOf(sandbox.uuid)).slice(2, 4)).toEqual(["running→pausing", "pausing→paused"]);
  });

  test("a sandbox whose pause fails goes on, says why, and is paused later, unless it is used meanwhile", async () => {
    server.agent.beforePause = async () => {
      throw new WrennError("host_out_of_disk", { message: "no room" });
    };
    const sandboxes = [await createPausing(), await createPausing()] as const;
    for (const sandbox of sandboxes) {
      await eventually(async () => {
        expect(await show(sandbox)).toMatchObject({
          status: "running",
          status_reason: { code: "host_out_of_disk", message: expect.stringContaining("could not be paused: no room") },
        });
      });
    }
    await whileAnotherTimesOut();
    expect(server.agent.asked).toHaveLength(2);
    const [times] = await server.query(
      `SELECT min(pause_retry_at) > now() AS waits, max(pause_retry_at) < now() + interval '31 seconds' AS soon,
         bool_and(last_active_at < now() - interval '1 second') AS idle FROM sandboxes WHERE status = 'running'`,
    );
    expect(times).toEqual({ waits: true, soon: true, idle: true });
    server.agent.behave();
    const [unused, used] = sandboxes;
    const close = await openStream(used);
    await server.query("UPDATE sandboxes SET pause_retry_at = now()");
    await eventually(async () => expect(await server.statusOf(unused.uuid)).toBe("paused"));
    expect(await server.statusOf(used.uuid)).toBe("running");
    close();
    await eventually(async () => expect(await server.statusOf(used.uuid)).toBe("paused"));
    expect(server.agent.destroys).not.toContain(unused.uuid);
  });

  test("of pauses that fail again and again the next is later and later, up to ten minutes", async () => {
    server.agent.beforePause = async () => {
      throw new WrennError("engine_failed");
    };
    const { uuid } = await createPausing();
    const waits: number[] = [];
    for (const failures of [1, 2, 3, 4, 5, 6, 7]) {
      const [row] = await eventually(async () => {
        const rows = await server.query<{ wait: number }>(
          `SELECT extract(epoch FROM pause_retry_at - at)::int AS wait FROM sandboxes JOIN sandbox_events
             ON sandbox_id = sandboxes.id AND sandbox_events.version = sandboxes.version
             WHERE pause_failures = $1 AND status = 'running' AND sandboxes.id = $2`,
          [failures, uuid],
        );
        expect(rows).toHaveLength(1);
        return rows;
      });
      waits.push(row?.wait ?? 0);
      await server.query("UPDATE sandboxes SET pause_retry_at = now()");
    }
    expect(waits).toEqual([30, 60, 120, 240, 480, 600, 600]);
  });
});

test("two replicas destroy an idle sandbox once", async () => {
  await server.startReplica();
  const sandboxes = await Promise.all(Array.from({ length: 4 }, async () => createIdle(1)));
  for (const sandbox of sandboxes) {
    await untilStopped(sandbox);
    expect((await server.eventsOf(sandbox.uuid)).slice(2)).toEqual(["running→stopping", "stopping→stopped"]);
  }
  expect(server.agent.destroys.toSorted()).toEqual(sandboxes.map(({ uuid }) => uuid).toSorted());
});

test("an update that races with the timeout either keeps the sandbox or is told that it is too late", async () => {
  // Room for one more, also when all of them are kept.
  server.agent.cpuCount = 64;
  await server.giveHostMemory(65_536);
  const sandboxes = await Promise.all(Array.from({ length: 8 }, async () => createIdle(1)));
  const outcomes = await Promise.all(
    sandboxes.map(async (sandbox, at) => {
      await eventually(async () => {
        const { body } = await server.call("GET", `/v1/sandboxes/${sandbox.id}`);
        // Each a little closer to its end.
        const left = Date.parse(String(body["expires_at"])) - Date.now();
        expect(body["expires_at"] === null || left < 100 - at * 40).toBe(true);
      });
      return server.send("PATCH", `/v1/sandboxes/${sandbox.id}`, { timeout_seconds: 3600 });
    }),
  );
  await whileAnotherTimesOut();
  for (const [at, { status, body }] of outcomes.entries()) {
    const uuid = sandboxes[at]?.uuid ?? "";
    const isKept = status === 200;
    expect([status, body]).toMatchObject(
      isKept ? [200, { timeout_seconds: 3600 }] : [409, { error: { code: "sandbox_state_conflict" } }],
    );
    expect((await server.call("GET", `/v1/sandboxes/sb-${uuid}`)).body).toMatchObject(
      isKept ? { status: "running", timeout_seconds: 3600 } : { status: "stopped", timeout_seconds: 1 },
    );
  }
});

test("a server that starts gives callers the time to return to sandboxes that were idle while there was none", async () => {
  const sandbox = await createIdle(2);
  await server.stopReplicas();
  await server.query("UPDATE sandboxes SET last_active_at = now() - interval '1 hour'");
  const [before] = await server.query<{ now: Date }>("SELECT now()");
  await server.startReplica();
  await untilStopped(sandbox);
  const [after] = await server.query<{ at: Date }>("SELECT at FROM sandbox_events WHERE to_status = 'stopping'");
  expect((after?.at.getTime() ?? 0) - (before?.now.getTime() ?? 0)).toBeGreaterThanOrEqual(2_000);
});

describe("what is not recorded yet", () => {
  /** As a replica that records now and then, and has recorded nothing since an hour ago. */
  async function addReplica(seen: string): Promise<void> {
    await server.query(
      `INSERT INTO replicas (id, complete_until, seen_at)
       VALUES (gen_random_uuid(), now() - interval '1 hour', now() - $1::interval)`,
      [seen],
    );
  }

  test("a sandbox outlives the loss of the database when it was used meanwhile, of whichever replica", async () => {
    const second = await server.startReplica();
    const unused = await createIdle(1);
    const used = await createIdle(1);
    const pinged = await createIdle(2);
    const close = await openStream(used, second.url);
    await server.call("POST", `/v1/sandboxes/${pinged.id}/ping`, { url: second.url });
    await database.pause();
    let isAway = true;
    onTestFinished(async () => {
      close();
      if (isAway) await database.resume();
    });
    const ended = performance.now() + 2_500;
    await eventually(async () => {
      expect((await server.call("POST", `/v1/sandboxes/${pinged.id}/ping`, { url: second.url })).status).toBe(204);
      expect(performance.now()).toBeGreaterThan(ended);
    });
    await database.resume();
    isAway = false;
    await untilStopped(unused);
    expect(await server.statusOf(used.uuid)).toBe("running");
    expect((await server.eventsOf(pinged.uuid)).slice(0, 2)).toEqual(["none→starting", "starting→running"]);
    close();
    await untilStopped(used);
    // It had all of its timeout after the last ping.
    await untilStopped(pinged);
    const [row] = await server.query("SELECT reason_code FROM sandbox_events WHERE to_status = 'stopping' LIMIT 1");
    expect(row).toEqual({ reason_code: "idle_timeout" });
  });

  test("a replica that is cut off from the database is waited for", async () => {
    const link = await CuttableLink.to(server.databaseUrl);
    onTestFinished(() => link.close());
    const second = await server.startReplica({ config: { databaseUrl: link.through(server.databaseUrl) } });
    const used = await createIdle(1);
    const close = await openStream(used, second.url);
    onTestFinished(close);
    link.cut();
    await eventually(async () => {
      const [row] = await server.query(
        "SELECT min(complete_until) < now() - interval '2 seconds' AS behind FROM replicas",
      );
      expect(row).toEqual({ behind: true });
    });
    expect(await server.statusOf(used.uuid)).toBe("running");
    link.mend();
    await whileAnotherTimesOut();
    expect(await server.statusOf(used.uuid)).toBe("running");
    close();
    await untilStopped(used);
  });

  test("a replica that has gone without a word is waited for no longer than it can have let anybody in", async () => {
    await server.stopReplicas();
    await addReplica("1 hour");
    await server.startReplica({ bounds: { replicaSilenceMs: 1_500 } });
    const [before] = await server.query<{ now: Date }>("SELECT now()");
    const sandbox = await createIdle(1);
    await untilStopped(sandbox);
    const [after] = await server.query<{ at: Date }>("SELECT at FROM sandbox_events WHERE to_status = 'stopping'");
    expect((after?.at.getTime() ?? 0) - (before?.now.getTime() ?? 0)).toBeGreaterThan(1_000);
    expect(await server.query("SELECT FROM replicas")).toHaveLength(1);
  });

  test("a replica that stops in order is not waited for, and what it knew is recorded", async () => {
    const second = await server.startReplica({ bounds: { sandboxActivityMs: 3_600_000 } });
    const sandbox = await server.create({ timeout_seconds: 600 });
    await server.query("UPDATE sandboxes SET last_active_at = now() - interval '1 minute'");
    await server.call("POST", `/v1/sandboxes/${sandbox.id}/ping`, { url: second.url });
    await second.stop();
    const [row] = await server.query("SELECT last_active_at > now() - interval '30 seconds' AS moved FROM sandboxes");
    expect(row).toEqual({ moved: true });
    expect(await server.query("SELECT FROM replicas")).toHaveLength(1);
    await whileAnotherTimesOut();
  });
});
