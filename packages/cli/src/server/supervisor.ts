/** The server of one machine: PostgreSQL, host agent and control plane, started in this order, kept alive, stopped in reverse. */
import { rm } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";
import { asWrennError, describeError, type hostAgentProto, WrennError } from "@wrenn/contract";
import { identifyProcess, isAlive, type Layout } from "@wrenn/system";
import { destroyAbandonedRuns } from "./abandoned-runs.ts";
import { prepareDirectories } from "./directories.ts";
import { HostAgentClient } from "./host-agent-client.ts";
import { rotateLog } from "./log-files.ts";
import { Part, type PartDefinition, readPartRecord } from "./part.ts";
import { assertPortFree, controlPlanePart, hostAgentPart, listenAddress } from "./parts.ts";
import { prepareEmbeddedPostgres } from "./postgres.ts";
import { hasGoldenSnapshot } from "./sandboxes-on-disk.ts";
import { readCredentials, type ServerRecord, writeServerRecord } from "./server-record.ts";
import { takeServerLock } from "./server-lock.ts";

export interface RunningServer {
  readonly url: string;
  readonly host: hostAgentProto.GetHostResponse;
  readonly startMs: number;
  readonly adopted: readonly string[];
}

export interface SupervisorOptions {
  layout: Layout;
  report: (message: string) => void;
  onReady: (server: RunningServer) => void;
  /** Aborting it stops the server in order. */
  signal: AbortSignal;
}

const houseKeepingMs = 5_000;

/**
 * Runs the server until the signal. Running sandboxes are left as they are: the next server adopts them.
 * @throws WrennError `already_running`, `port_taken`, `root_required`, and whatever keeps a part from starting; everything
 * started by then has been stopped again.
 */
export async function runServer(options: SupervisorOptions): Promise<void> {
  const { layout, report, signal } = options;
  await prepareDirectories(layout);
  const lock = await takeServerLock(layout);
  if (lock === null) throw new WrennError("already_running");
  const record = await newRecord();
  const setState = async (change: Partial<ServerRecord>): Promise<void> => {
    Object.assign(record, change);
    await writeServerRecord(layout, record);
  };
  const parts: Part[] = [];
  try {
    await setState({ state: "starting" });
    const server = await startParts(layout, parts, report, signal);
    await setState({ state: "ready", url: server.url });
    options.onReady(server);
    await Promise.all([...parts.map((part) => part.keepAlive(signal)), keepHouse(layout, parts, report, signal)]);
    await setState({ state: "stopping" });
    await stopParts(parts, report);
  } catch (error) {
    await stopParts(parts, report);
    if (!signal.aborted) {
      const { code, message, suggestion } = asWrennError(error);
      await setState({ state: "failed", error: { code, message, suggestion } });
      throw error;
    }
  } finally {
    if (record.state !== "failed") await rm(layout.processRecord("server"), { force: true });
    await lock.release();
  }
}

async function newRecord(): Promise<ServerRecord> {
  const identity = await identifyProcess(process.pid);
  if (identity === null) throw new WrennError("unsupported_machine", { message: "/proc does not show this process." });
  return { identity, state: "starting", startedAt: new Date().toISOString() };
}

/** Starts what is not running yet; `parts` grows by each part as it is begun. */
async function startParts(
  layout: Layout,
  parts: Part[],
  report: (message: string) => void,
  signal: AbortSignal,
): Promise<RunningServer> {
  const start = performance.now();
  const adopted: string[] = [];
  const begin = async (definition: PartDefinition): Promise<void> => {
    signal.throwIfAborted();
    const part = new Part(layout, definition, report);
    parts.push(part);
    if ((await part.ensureStarted(signal)) === "adopted") adopted.push(part.name);
  };
  const running = await readPartRecord(layout, "control-plane");
  if (running === null || !(await isAlive(running.identity))) await assertPortFree(listenAddress());
  let databaseUrl = process.env["DATABASE_URL"];
  if (databaseUrl === undefined || databaseUrl === "") {
    const embedded = await prepareEmbeddedPostgres(layout);
    await begin(embedded.part);
    databaseUrl = embedded.databaseUrl;
  }
  if (!(await hasGoldenSnapshot(layout)))
    report("freezing a first guest for sandboxes to start from, once: about 10 s");
  await begin(await hostAgentPart(layout));
  await begin(await controlPlanePart(layout, databaseUrl));
  const host = await new HostAgentClient(layout).getHost();
  return { url: `http://${listenAddress()}`, host, startMs: performance.now() - start, adopted };
}

async function stopParts(parts: readonly Part[], report: (message: string) => void): Promise<void> {
  for (const part of parts.toReversed()) {
    try {
      await part.stop();
    } catch (error) {
      report(`${part.name} could not be stopped: ${describeError(error)}`);
    }
  }
}

/** What is done now and then while the server runs. */
async function keepHouse(
  layout: Layout,
  parts: readonly Part[],
  report: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    try {
      for (const part of parts) await rotateLog(layout.log(part.name));
      const credentials = await readCredentials(layout);
      if (credentials !== null) {
        const api = { apiUrl: credentials.url, apiKey: credentials.api_key };
        await destroyAbandonedRuns(api, report, signal);
      }
    } catch (error) {
      // The control plane or its database is away; the next round finds what this one missed.
      if (process.env["WRENN_DEBUG"] !== undefined) report(`house-keeping failed: ${describeError(error)}`);
    }
    await delay(houseKeepingMs, undefined, { signal }).catch(() => undefined);
  }
}
