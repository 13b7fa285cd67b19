/** The control plane as a process of its own, built as it is shipped. */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { identifyProcess, runUnchecked, startDaemon, wrennLayout } from "@wrenn/system";
import type { Layout } from "@wrenn/system";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { credentialsSchema } from "./services/local-credentials.ts";
import type { Credentials } from "./services/local-credentials.ts";
import { SimulatedHostAgent } from "./testing/simulated-host-agent.ts";
import { TestDatabase } from "./testing/test-database.ts";
import { eventually, gate } from "./testing/test-server.ts";

const program = fileURLToPath(new URL("../dist/main.js", import.meta.url));

let database: TestDatabase;
let databaseUrl: string;
let layout: Layout;
let agent: SimulatedHostAgent;
const started: { pid: number; exited: Promise<number> }[] = [];

beforeAll(async () => {
  database = await TestDatabase.start();
});
afterAll(async () => database.stop());
beforeEach(async () => {
  databaseUrl = await database.create();
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-main-")));
  await mkdir(layout.run);
  agent = await SimulatedHostAgent.start(layout.hostAgentSocket);
});
afterEach(async () => {
  for (const { pid, exited } of started.splice(0)) {
    if ((await identifyProcess(pid)) !== null) process.kill(pid, "SIGKILL");
    await exited;
  }
  await agent.stop();
  await rm(layout.root, { recursive: true, force: true });
});

function environment(changes: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  return {
    PATH: process.env["PATH"],
    DATABASE_URL: databaseUrl,
    WRENN_DIR: layout.root,
    WRENN_LISTEN: "127.0.0.1:0",
    WRENN_LOCAL_CREDENTIALS: layout.credentials,
    ...changes,
  };
}

async function start(): Promise<{ pid: number; exited: Promise<number>; credentials: Credentials }> {
  await rm(layout.credentials, { force: true });
  const daemon = await startDaemon(process.execPath, [program], {
    env: environment(),
    logFile: path.join(layout.root, "control-plane.log"),
  });
  started.push(daemon);
  const credentials = await eventually(async () =>
    credentialsSchema.parse(JSON.parse(await readFile(layout.credentials, "utf8"))),
  );
  return { ...daemon, credentials };
}

async function call(
  { url, api_key }: Credentials,
  method: string,
  target: string,
  extraHeaders: Record<string, string> = {},
): Promise<{ status: number; headers: Headers; body: string }> {
  const headers = { "X-API-Key": api_key, "Content-Type": "application/json", ...extraHeaders };
  const response = await fetch(`${url}${target}`, { method, headers, ...(method === "POST" ? { body: "{}" } : {}) });
  return { status: response.status, headers: response.headers, body: await response.text() };
}

test("it starts on an empty database, serves, and stops with 0 when asked to", async () => {
  const { pid, exited, credentials } = await start();
  expect((await call(credentials, "GET", "/health")).status).toBe(200);
  expect((await call(credentials, "POST", "/v1/sandboxes")).status).toBe(201);
  process.kill(pid, "SIGTERM");
  expect(await exited).toBe(0);
});

test("a create under way when it is asked to stop is completed", async () => {
  const { pid, exited, credentials } = await start();
  const asked = gate();
  const held = gate();
  agent.beforeCreate = async () => {
    asked.open();
    await held.opened;
  };
  const creating = call(credentials, "POST", "/v1/sandboxes");
  await asked.opened;
  process.kill(pid, "SIGTERM");
  await eventually(async () => {
    expect(await readFile(path.join(layout.root, "control-plane.log"), "utf8")).toContain('"msg":"stopping"');
  });
  held.open();
  expect((await creating).status).toBe(201);
  expect(await exited).toBe(0);
});

test("killed in the middle of a create and a destroy, the next one completes both", async () => {
  const first = await start();
  const { body } = await call(first.credentials, "POST", "/v1/sandboxes");
  const { id } = JSON.parse(body) as { id: string };
  const creating = gate();
  const destroying = gate();
  const held = gate();
  agent.beforeCreate = async () => {
    creating.open();
    await held.opened;
  };
  agent.beforeDestroy = async () => {
    destroying.open();
    await held.opened;
  };
  const calls = [
    call(first.credentials, "POST", "/v1/sandboxes"),
    call(first.credentials, "DELETE", `/v1/sandboxes/${id}`),
  ];
  const failed = Promise.allSettled(calls);
  await Promise.all([creating.opened, destroying.opened]);
  process.kill(first.pid, "SIGKILL");
  await first.exited;
  expect((await failed).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  held.open();
  const second = await start();
  const statuses = async (): Promise<string[]> => {
    const listed = await call(
      second.credentials,
      "GET",
      "/v1/sandboxes?status=pending,starting,running,stopping,error",
    );
    return (JSON.parse(listed.body) as { sandboxes: { status: string }[] }).sandboxes.map(({ status }) => status);
  };
  // The destroy had reached the host; its row is looked into when its deadline has passed.
  await eventually(async () => expect(await statuses()).toEqual(["running", "stopping"]));
  expect(agent.sandboxes.size).toBe(1);
});

test("killed in the middle of a create with an Idempotency-Key, the next one answers its sandbox", async () => {
  const first = await start();
  const creating = gate();
  const held = gate();
  agent.beforeCreate = async () => {
    creating.open();
    await held.opened;
  };
  const key = { "Idempotency-Key": "once" };
  const failed = Promise.allSettled([call(first.credentials, "POST", "/v1/sandboxes", key)]);
  await creating.opened;
  process.kill(first.pid, "SIGKILL");
  await first.exited;
  await failed;
  const second = await start();
  const again = call(second.credentials, "POST", "/v1/sandboxes", key);
  held.open();
  const { status, headers, body } = await again;
  expect([status, headers.get("idempotent-replayed")]).toEqual([201, "true"]);
  const [{ sandboxId } = { sandboxId: "" }, ...others] = agent.creates;
  expect(JSON.parse(body)).toMatchObject({ id: `sb-${sandboxId}`, status: "running" });
  expect(others).toEqual([]);
});

test("a port that is taken is said in a sentence, with an exit code of its own", async () => {
  const { credentials } = await start();
  const { host } = new URL(credentials.url);
  const env = environment({ WRENN_LISTEN: host, WRENN_LOCAL_CREDENTIALS: undefined });
  const { exitCode, stderr } = await runUnchecked(process.execPath, [program], { env });
  expect(exitCode).toBe(3);
  expect(stderr).toContain(`port_taken: Another program listens on ${host}.`);
  expect(stderr).toContain("WRENN_LISTEN");
});

test("a wrong environment is said in a sentence", async () => {
  const env = environment({ DATABASE_URL: undefined, WRENN_LISTEN: "everywhere" });
  const { exitCode, stderr } = await runUnchecked(process.execPath, [program], { env });
  expect(exitCode).toBe(1);
  expect(stderr).toMatch(/^invalid_request: .*DATABASE_URL.*WRENN_LISTEN/);
});

test("a database of a newer version is said in a sentence", async () => {
  const { pid, exited } = await start();
  process.kill(pid, "SIGTERM");
  await exited;
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query("INSERT INTO schema_migrations (version, name, checksum) VALUES (9999, 'future', '')");
  await client.end();
  const { exitCode, stderr } = await runUnchecked(process.execPath, [program], { env: environment() });
  expect(exitCode).toBe(1);
  expect(stderr).toContain("database_incompatible: The database has migration 9999_future");
});
