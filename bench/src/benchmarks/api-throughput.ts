/**
 * Requests per second of the API's own work, without guests: control plane and PostgreSQL with a simulated host agent, against a
 * bare Fastify route that runs the same statements in a database of its own. Each side is a process of its own, as the load is.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { readCredentials } from "@wrenn/cli";
import { TestDatabase } from "@wrenn/control-plane/testing";
import { pollUntil, wrennLayout } from "@wrenn/system";
import { Pool } from "undici";
import { z } from "zod";
import { type Measurement, progressLine } from "../report.ts";

const inFlight = 16;
const getsInBlock = 1_000;
const createsInBlock = 50;
/** Until compilers and the database's caches have settled. */
const warmUpBlocks = 3;
const startTimeoutMs = 30_000;

const controlPlane = fileURLToPath(import.meta.resolve("@wrenn/control-plane")).replace(/index\.js$/, "main.js");
const bareApi = fileURLToPath(new URL("../bare-api.js", import.meta.url));

interface Side {
  readonly pool: Pool;
  readonly headers: Readonly<Record<string, string>>;
  readonly path: string;
}

interface Samples {
  /** Milliseconds of one block divided by its requests. */
  readonly perRequest: number[];
  readonly latency: number[];
}

export async function measureApiThroughput(runs: number): Promise<Measurement[]> {
  const directory = await mkdtemp(path.join(os.tmpdir(), "wrenn-api-"));
  const layout = wrennLayout(directory);
  await mkdir(layout.run, { recursive: true });
  const database = await TestDatabase.start();
  const children: ChildProcess[] = [];
  try {
    const env = {
      ...process.env,
      WRENN_DIR: directory,
      WRENN_LISTEN: "127.0.0.1:0",
      WRENN_LOG_LEVEL: "warn",
      WRENN_LOCAL_CREDENTIALS: layout.credentials,
    };
    const bareEnv = { ...env, DATABASE_URL: await database.create() };
    const bare = start(bareApi, bareEnv);
    children.push(bare);
    const bareUrl = await firstLine(bare);
    // A control plane makes the tables of the bare side's database as well.
    const preparing = start(controlPlane, bareEnv);
    children.push(preparing);
    await untilReady(layout);
    await stop(preparing);
    await rm(layout.credentials);
    children.push(start(controlPlane, { ...env, DATABASE_URL: await database.create() }));
    const { url, api_key } = await untilReady(layout);
    const ours: Side = { pool: poolFor(url), headers: { "x-api-key": api_key }, path: "/v1/sandboxes" };
    const theirs: Side = { pool: poolFor(bareUrl), headers: {}, path: "/sandboxes" };
    try {
      return [
        ...(await compare("create", ours, theirs, runs, createBlock)),
        ...(await compare("get", ours, theirs, runs, getBlock)),
      ];
    } finally {
      await Promise.all([ours.pool.close(), theirs.pool.close()]);
    }
  } finally {
    for (const child of children) await stop(child);
    await database.stop();
    await rm(directory, { recursive: true, force: true });
  }
}

async function compare(
  what: string,
  ours: Side,
  bare: Side,
  runs: number,
  block: (side: Side, samples: Samples) => Promise<void>,
): Promise<Measurement[]> {
  const samples = { ours: emptySamples(), bare: emptySamples() };
  for (let round = -warmUpBlocks; round < runs; round += 1) {
    const into = round < 0 ? { ours: emptySamples(), bare: emptySamples() } : samples;
    await block(bare, into.bare);
    await block(ours, into.ours);
    if (round >= 0) console.error(progressLine(`API: ${what}`, round + 1, runs, samples.ours.perRequest));
  }
  const of = (key: keyof Samples) =>
    ({ ours: samples.ours[key], bare: samples.bare[key], unit: "ms", failures: 0 }) as const;
  const name = `API: ${what}, ${inFlight} in flight`;
  return [
    { name: `${name}: time per request`, ...of("perRequest"), target: 2 },
    { name: `${name}: latency, median`, ...of("latency"), target: null },
    { name: `${name}: latency, p99`, ...of("latency"), percentile: 99, target: null },
  ];
}

function emptySamples(): Samples {
  return { perRequest: [], latency: [] };
}

const createdSchema = z.object({ id: z.string() });

async function createBlock(side: Side, samples: Samples): Promise<void> {
  await block(createsInBlock, samples, async () => send(side, "POST", side.path, '{"memory_mib":128}', 201));
}

async function getBlock(side: Side, samples: Samples): Promise<void> {
  const { id } = createdSchema.parse(JSON.parse(await send(side, "POST", side.path, '{"memory_mib":128}', 201)));
  await block(getsInBlock, samples, async () => send(side, "GET", `${side.path}/${id}`, null, 200));
}

async function block(requests: number, samples: Samples, request: () => Promise<unknown>): Promise<void> {
  let left = requests;
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const began = performance.now();
      await request();
      samples.latency.push(performance.now() - began);
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: inFlight }, worker));
  samples.perRequest.push((performance.now() - began) / requests);
}

async function send(
  side: Side,
  method: "GET" | "POST",
  target: string,
  body: string | null,
  expected: number,
): Promise<string> {
  const headers = { ...side.headers, ...(body === null ? {} : { "content-type": "application/json" }) };
  const answer = await side.pool.request({ method, path: target, headers, body });
  const text = await answer.body.text();
  if (answer.statusCode !== expected)
    throw new Error(`${method} ${target} was answered with ${answer.statusCode}: ${text}`);
  return text;
}

function poolFor(url: string): Pool {
  return new Pool(url, { connections: inFlight });
}

function start(program: string, env: NodeJS.ProcessEnv): ChildProcess {
  return spawn(process.execPath, [program], { env, stdio: ["pipe", "pipe", "inherit"] });
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}

async function firstLine({ stdout }: { readonly stdout: Readable | null }): Promise<string> {
  if (stdout === null) throw new Error("the process has no output");
  for await (const line of createInterface({ input: stdout })) return line;
  throw new Error("the process ended before it was ready");
}

async function untilReady(layout: ReturnType<typeof wrennLayout>) {
  const look = async () => {
    const credentials = await readCredentials(layout);
    if (credentials === null) return null;
    return fetch(`${credentials.url}/v1/sandboxes`, { headers: { "x-api-key": credentials.api_key } }).then(
      (response) => (response.ok ? credentials : null),
      () => null,
    );
  };
  const credentials = await pollUntil(look, { timeoutMs: startTimeoutMs, intervalMs: 100 });
  if (credentials === null) throw new Error("the control plane did not become ready");
  return credentials;
}
