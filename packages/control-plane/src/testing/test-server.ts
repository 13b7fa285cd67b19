/** A whole control plane for tests: a database of its own, a simulated host agent, and a key. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, httpLimits } from "@wrenn/contract";
import { createLog, wrennLayout } from "@wrenn/system";
import pg from "pg";
import type { Logger } from "pino";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { z } from "zod";
import type { Config } from "../config.ts";
import { startControlPlane } from "../control-plane.ts";
import type { ControlPlane, ServerBounds } from "../control-plane.ts";
import { undescribedError } from "../http/errors.ts";
import { SimulatedHostAgent } from "./simulated-host-agent.ts";
import { TestDatabase } from "./test-database.ts";

/** Whose pages may use a test's server. */
export const allowedOrigin = "https://app.example.com";

/** Rounds follow each other quickly, and a host counts as silent soon. */
const quickBounds: ServerBounds = {
  reconcileMs: 60,
  roundMs: deadlines.reconcileRound,
  hostSilenceMs: 400,
  drainMs: 500,
  sandboxActivityMs: 40,
  sandboxTimeoutsMs: 60,
  sandboxTimeoutsResumeMs: 300_000,
  idempotencyKeysMs: 60,
  replicaSilenceMs: 300_000,
  requestHeadMs: deadlines.requestHead,
  requestBodyMs: deadlines.requestBody,
  uploadIdleMs: 3_000,
  maxConnections: httpLimits.connections,
  streams: { openingMs: deadlines.streamOpening, pingMs: deadlines.streamPing, pongMs: deadlines.streamPong },
};

const undescribedSchema = z.object({ method: z.unknown(), url: z.string(), code: z.string() });

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // Whatever JSON came: tests look into it.
  readonly body: Record<string, never>;
}

export interface CallOptions extends RequestInit {
  /** Null for none. The server's own when left out. */
  readonly key?: string | null;
  /** Of another replica. */
  readonly url?: string;
}

export class TestServer {
  readonly directory: string;
  readonly databaseUrl: string;
  readonly agent: SimulatedHostAgent;
  readonly log: Logger;
  /** Every line that was logged, by every replica. */
  readonly logged: string[] = [];
  readonly #controlPlanes: ControlPlane[] = [];
  readonly #pool: pg.Pool;
  key = "";
  url = "";

  /** Its own, to be stopped with it. */
  readonly #database: TestDatabase | null;

  private constructor(
    directory: string,
    databaseUrl: string,
    agent: SimulatedHostAgent,
    database: TestDatabase | null,
  ) {
    this.directory = directory;
    this.#database = database;
    this.databaseUrl = databaseUrl;
    this.agent = agent;
    this.log = createLog({ level: "trace", destination: { write: (line) => this.logged.push(line) } });
    this.#pool = new pg.Pool({ connectionString: databaseUrl, max: 2 });
    this.#pool.on("error", () => undefined);
  }

  /** @param database somebody else's, for who wants to do something to it; by default one is made, and goes with the server */
  static async start(bounds: Partial<ServerBounds> = {}, database?: TestDatabase): Promise<TestServer> {
    const given = database ?? (await TestDatabase.start());
    const url = await given.create();
    const directory = await mkdtemp(path.join(tmpdir(), "wrenn-server-"));
    const agent = await SimulatedHostAgent.start(path.join(directory, "host-agent.sock"));
    const server = new TestServer(directory, url, agent, database === undefined ? given : null);
    await server.startReplica({ bounds });
    server.key = await server.makeKey("test");
    return server;
  }

  /** Another control plane on the same database and host; the first one's is the server's url. */
  async startReplica(
    changes: { bounds?: Partial<ServerBounds>; config?: Partial<Config> } = {},
  ): Promise<ControlPlane> {
    const layout = { ...wrennLayout(this.directory), hostAgentSocket: path.join(this.directory, "host-agent.sock") };
    const config = {
      databaseUrl: this.databaseUrl,
      layout,
      listen: { host: "127.0.0.1", port: 0 },
      allowedOrigins: [allowedOrigin],
      localCredentials: undefined,
      trustDatabase: false,
      logLevel: "trace" as const,
      ...changes.config,
    };
    const controlPlane = await startControlPlane(config, this.log, { ...quickBounds, ...changes.bounds });
    this.#controlPlanes.push(controlPlane);
    if (this.#controlPlanes.length === 1) this.url = controlPlane.url;
    return controlPlane;
  }

  /** Stops them in order; the host agent goes on. */
  async stopReplicas(): Promise<void> {
    for (const controlPlane of this.#controlPlanes.splice(0)) await controlPlane.stop();
  }

  async stop(): Promise<void> {
    await this.stopReplicas();
    await this.agent.stop();
    await this.#pool.end();
    await this.#database?.stop();
    await rm(this.directory, { recursive: true, force: true });
    this.#assertErrorsWereDescribed();
  }

  /** Whatever errors the tests have met must be in the description of the API (http/route-errors.ts). */
  #assertErrorsWereDescribed(): void {
    const undescribed = this.logged.flatMap((line) => {
      if (!line.includes(undescribedError)) return [];
      const { method, url, code } = undescribedSchema.parse(JSON.parse(line));
      return [`${String(method)} ${url}: ${code}`];
    });
    if (undescribed.length > 0) throw new Error([undescribedError, ...new Set(undescribed)].join("\n"));
  }

  /** A key of a new team. */
  async makeKey(team: string): Promise<string> {
    const [controlPlane] = this.#controlPlanes;
    if (controlPlane === undefined) throw new Error("not started");
    const [row] = await this.query<{ id: string }>(
      "INSERT INTO teams (id, name) VALUES (gen_random_uuid(), $1) RETURNING id",
      [team],
    );
    return (await controlPlane.apiKeys.create((row?.id ?? "") as never, team)).key;
  }

  async query<Row extends pg.QueryResultRow>(sql: string, values: unknown[] = []): Promise<Row[]> {
    return (await this.#pool.query<Row>(sql, values)).rows;
  }

  async call(method: string, target: string, init: CallOptions = {}): Promise<Answer> {
    const { key = this.key, url = this.url, ...rest } = init;
    const headers = new Headers(rest.headers);
    if (key !== null && !headers.has("X-API-Key")) headers.set("X-API-Key", key);
    const response = await fetch(`${url}${target}`, { ...rest, method, headers });
    const text = await response.text();
    return { status: response.status, headers: response.headers, body: text === "" ? {} : JSON.parse(text) };
  }

  async post(target: string, body: unknown, init: CallOptions = {}): Promise<Answer> {
    return this.send("POST", target, body, init);
  }

  async send(method: string, target: string, body: unknown, init: CallOptions = {}): Promise<Answer> {
    const headers = new Headers(init.headers);
    headers.set("Content-Type", "application/json");
    return this.call(method, target, { ...init, headers, body: JSON.stringify(body) });
  }

  /** A running sandbox's wire id, bare UUID and access token. */
  async create(
    ask: Record<string, unknown> = {},
    key = this.key,
  ): Promise<{ id: string; uuid: string; token: string }> {
    const { status, body } = await this.post("/v1/sandboxes", ask, { key });
    if (status !== 201) throw new Error(`create answered ${status}: ${JSON.stringify(body)}`);
    const { id, access_token } = body as unknown as { id: string; access_token: string };
    return { id, uuid: id.slice("sb-".length), token: access_token };
  }

  /** Gives the host so much memory, and returns once the server knows. */
  async giveHostMemory(memoryMib: number): Promise<void> {
    this.agent.memoryMib = memoryMib;
    await eventually(async () => {
      const rows = await this.query("SELECT FROM hosts WHERE memory_mib = $1", [memoryMib]);
      if (rows.length === 0) throw new Error("the host's memory has not been written down yet");
    });
  }

  async statusOf(uuid: string): Promise<string | undefined> {
    const [row] = await this.query<{ status: string }>("SELECT status FROM sandboxes WHERE id = $1", [uuid]);
    return row?.status;
  }

  /** `from→to` of every event of a sandbox, in order. */
  async eventsOf(uuid: string): Promise<string[]> {
    const rows = await this.query<{ from_status: string | null; to_status: string }>(
      "SELECT from_status, to_status FROM sandbox_events WHERE sandbox_id = $1 ORDER BY version",
      [uuid],
    );
    return rows.map((row) => `${row.from_status ?? "none"}→${row.to_status}`);
  }
}

/** One server for all tests of a file, whose host behaves well at the beginning of each. */
export function useTestServer(bounds: Partial<ServerBounds> = {}): () => TestServer {
  let server: TestServer | undefined;
  beforeAll(async () => {
    server = await TestServer.start(bounds);
    // Room for whatever the tests before have left running.
    server.agent.cpuCount = 64;
    await server.giveHostMemory(262_144);
  });
  beforeEach(() => {
    server?.agent.behave();
  });
  afterAll(async () => server?.stop());
  return () => {
    if (server === undefined) throw new Error("the server has not been started");
    return server;
  };
}

/** Looks again until the look succeeds, for at most as long as any step of a test may take. */
export async function eventually<Value>(look: () => Promise<Value> | Value): Promise<Value> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    try {
      return await look();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await delay(20);
    }
  }
}

/** A promise and the function that fulfils it: for tests that decide when something goes on. */
export function gate(): { readonly opened: Promise<void>; readonly open: () => void } {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}
