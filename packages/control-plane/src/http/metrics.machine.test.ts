import { readFile } from "node:fs/promises";
import type { Duplex } from "node:stream";
import { platformTeamId } from "@wrenn/contract";
import { afterAll, beforeAll, expect, test } from "vitest";
import { RawClient } from "../testing/raw-client.ts";
import { RawConnection } from "../testing/raw-connection.ts";
import { TestDatabase } from "../testing/test-database.ts";
import { eventually, gate, TestServer } from "../testing/test-server.ts";

let database: TestDatabase;
let server: TestServer;
let isAway = false;

beforeAll(async () => {
  database = await TestDatabase.start({ own: true });
  server = await TestServer.start({}, database);
});
afterAll(async () => {
  if (isAway) await database.resume();
  await server.stop();
  await database.stop();
});

async function scrape(url = server.url): Promise<string> {
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  return response.text();
}

/** The value of a series, by its name and labels as they are printed; 0 where there is none. */
async function value(series: string): Promise<number> {
  const line = (await scrape()).split("\n").find((text) => text.startsWith(`${series} `));
  return line === undefined ? 0 : Number(line.slice(series.length + 1));
}

test("requests are counted by method, route and class of status, never by what is in their addresses", async () => {
  const { id, uuid } = await server.create();
  const route = 'method="GET",route="/v1/sandboxes/:id"';
  await server.call("GET", `/v1/sandboxes/${id}?secret=in-a-query`);
  await server.call("GET", "/v1/sandboxes/sb-nonsense");
  await server.call("GET", "/nowhere/to/be/found");
  await eventually(async () => {
    expect(await value(`wrenn_http_requests_total{${route},status="2xx"}`)).toBe(1);
    expect(await value(`wrenn_http_requests_total{${route},status="4xx"}`)).toBe(1);
    expect(await value('wrenn_http_requests_total{method="GET",route="none",status="4xx"}')).toBe(1);
    expect(await value(`wrenn_http_request_duration_seconds_count{${route}}`)).toBe(2);
  });
  const text = await scrape();
  for (const word of [uuid, "nonsense", "nowhere", "in-a-query", server.key]) expect(text).not.toContain(word);
});

test("a request under way is seen, and one whose client left is counted as aborted", async () => {
  const asked = gate();
  const held = gate();
  server.agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  const connection = await RawConnection.open(server.url);
  connection.send(
    `POST /v1/sandboxes HTTP/1.1\r\nHost: t\r\nX-API-Key: ${server.key}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}`,
  );
  await asked.opened;
  // Itself and the scrape.
  expect(await value("wrenn_http_requests_in_flight")).toBe(2);
  connection.close();
  await eventually(async () => {
    expect(await value('wrenn_http_requests_total{method="POST",route="/v1/sandboxes",status="aborted"}')).toBe(1);
  });
  expect(await value("wrenn_http_requests_in_flight")).toBe(1);
  held.open();
  server.agent.beforeCreate = async () => undefined;
});

test("the data plane's requests, refusals, upgrades and tunnels are counted", async () => {
  const { id } = await server.create();
  const client = new RawClient(server, id);
  expect(await (await client.send("/files")).text()).toContain("/files");
  await client.refusal("/", { port: 81 });
  await eventually(async () => {
    expect(await value('wrenn_data_plane_requests_total{status="2xx"}')).toBe(1);
    expect(await value('wrenn_data_plane_requests_total{status="5xx"}')).toBe(1);
    expect(await value('wrenn_data_plane_refused_total{code="port_closed"}')).toBe(1);
  });
  // The one that was opened ahead, to the guest agent, is closed when nobody has used it for a while.
  await eventually(async () => expect(await value("wrenn_tunnels_open")).toBe(1));
  const upgrade = client.start("/websocket", {
    headers: {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    },
  });
  upgrade.on("error", () => undefined);
  const open = new Promise<Duplex>((resolve) => {
    upgrade.once("upgrade", (_response, socket) => {
      resolve(socket);
    });
  });
  upgrade.end();
  const socket = await open;
  expect(await value("wrenn_data_plane_upgraded_connections")).toBe(1);
  expect(await value('wrenn_data_plane_requests_total{status="1xx"}')).toBe(1);
  const stream = client.start("/stream?line");
  stream.on("error", () => undefined).end();
  await eventually(async () => expect(await value("wrenn_data_plane_requests_in_flight")).toBe(1));
  stream.destroy();
  socket.destroy();
  await eventually(async () => {
    expect(await value("wrenn_data_plane_requests_in_flight")).toBe(0);
    expect(await value("wrenn_data_plane_upgraded_connections")).toBe(0);
    expect(await value('wrenn_data_plane_requests_total{status="aborted"}')).toBe(1);
  });
});

test("sandboxes are counted by status, and the steps of their creation are timed", async () => {
  const before = await value('wrenn_sandbox_create_step_duration_seconds_count{step="boot"}');
  server.agent.steps = [{ step: "boot", milliseconds: 1_500 }];
  await server.create();
  const [row] = await server.query<{ count: number }>(
    "SELECT count(*)::int AS count FROM sandboxes WHERE status = 'running'",
  );
  await eventually(async () => expect(await value('wrenn_sandboxes{status="running"}')).toBe(row?.count));
  expect(await scrape()).toContain('wrenn_sandboxes{status="stopping"} 0');
  expect(await value('wrenn_sandbox_create_step_duration_seconds_count{step="boot"}')).toBe(before + 1);
  expect(await value('wrenn_sandbox_create_step_duration_seconds_bucket{le="1",step="boot"}')).toBe(0);
  expect(await value('wrenn_sandbox_create_step_duration_seconds_bucket{le="2.5",step="boot"}')).toBe(1);
});

test("hosts are as the reconciler last saw them", async () => {
  await eventually(async () => {
    expect(await value('wrenn_host_up{host="local"}')).toBe(1);
    expect(await value('wrenn_host_memory_bytes{host="local",state="total"}')).toBe(8192 * 1_048_576);
    expect(await value('wrenn_host_slots{host="local",state="ready"}')).toBe(3);
    expect(await value('wrenn_host_slots{host="local",state="in_use"}')).toBe(server.agent.sandboxes.size);
  });
  await server.agent.pause();
  await eventually(async () => expect(await value('wrenn_host_up{host="local"}')).toBe(0));
  expect(await scrape()).not.toContain("wrenn_host_memory_bytes{");
  await server.agent.resume();
});

test("process, event loop, connections and version are there", async () => {
  const text = await scrape();
  for (const name of [
    "process_resident_memory_bytes",
    "process_open_fds",
    "nodejs_eventloop_lag_p99_seconds",
    "wrenn_connections_refused_total",
    'wrenn_database_connections{state="in_use"}',
    'wrenn_database_connections{state="waiting"}',
    `wrenn_build_info{version="0.1.0",node="${process.version}"} 1`,
  ]) {
    expect(text).toContain(name);
  }
});

test("connections beyond their number are counted", async () => {
  const { url } = await server.startReplica({ bounds: { maxConnections: 1 } });
  const only = await RawConnection.open(url);
  const metrics = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n";
  await only.send("GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").untilReplies(1);
  const beyond = await RawConnection.open(url);
  await beyond.untilClosed();
  only.send(metrics);
  await eventually(() => expect(only.text).toContain("wrenn_connections_refused_total 1\n"));
  for (const connection of [only, beyond]) connection.close();
});

test("anyone on this machine may read them while the server listens on loopback only, but no page and no proxy", async () => {
  const ask = async (host: string, ...lines: string[]): Promise<number> => {
    const connection = await RawConnection.open(server.url);
    connection.send(["GET /metrics HTTP/1.1", `Host: ${host}`, ...lines, "", ""].join("\r\n"));
    const [reply] = await connection.untilReplies(1);
    connection.close();
    return reply === undefined ? 0 : reply.status;
  };
  expect([await ask("127.0.0.1:7070"), await ask("localhost"), await ask("[::1]:7070")]).toEqual([200, 200, 200]);
  expect(await ask("rebound.example:7070")).toBe(401);
  expect(await ask("127.0.0.1.example")).toBe(401);
  expect(await ask("127.0.0.1", "Origin: http://localhost:3000")).toBe(401);
  expect(await ask("127.0.0.1", "X-Forwarded-For: 203.0.113.1")).toBe(401);
  expect(await ask("127.0.0.1", "Via: 1.1 proxy")).toBe(401);
});

test("where the server listens for others too, they are for the operator's keys only", async () => {
  const credentials = `${server.directory}/credentials.json`;
  const { url, apiKeys } = await server.startReplica({
    config: { listen: { host: "0.0.0.0", port: 0 }, localCredentials: credentials },
  });
  const ask = async (key?: string): Promise<number> =>
    (await fetch(`${url}/metrics`, key === undefined ? {} : { headers: { Authorization: `Bearer ${key}` } })).status;
  expect(await ask()).toBe(401);
  expect(await ask(`wrn_${"0".repeat(40)}`)).toBe(401);
  expect(await ask(server.key)).toBe(403);
  expect(await ask((await apiKeys.create(platformTeamId, "operator")).key)).toBe(200);
  const { api_key } = JSON.parse(await readFile(credentials, "utf8")) as {
    api_key: string;
  };
  expect(await ask(api_key)).toBe(200);
});

test("while the database is away they have what there is without it, and soon", async () => {
  expect(await scrape()).toContain("wrenn_sandboxes{");
  isAway = true;
  await database.pause();
  await eventually(async () => expect(await value("wrenn_database_up")).toBe(0));
  const text = await scrape();
  expect(text).not.toContain("wrenn_sandboxes{");
  expect(text).toContain("wrenn_http_requests_total{");
  await database.resume();
  isAway = false;
  await eventually(async () => {
    expect(await value("wrenn_database_up")).toBe(1);
    expect(await scrape()).toContain("wrenn_sandboxes{");
  });
});
