/** Reaching a server: the one the environment names, else the one of this machine, set up and started if need be. */
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, isErrorCode, WrennError } from "@wrenn/contract";
import type { ConnectionOptions } from "@wrenn/sdk";
import { identifyProcess, isAlive, type Layout, type ProcessIdentity, startDaemon } from "@wrenn/system";
import { prepareDirectories } from "./server/directories.ts";
import { cliEntry } from "./server/installation.ts";
import { rotateLog, tailLog } from "./server/log-files.ts";
import { readCredentials, readLiveServer, readServerRecord, type ServerRecord } from "./server/server-record.ts";

export interface Connection {
  /** What the SDK takes. */
  readonly api: Pick<ConnectionOptions, "apiUrl" | "apiKey">;
  readonly url: string;
  /** Whether the server is this machine's own, which can see the processes here. */
  readonly isLocal: boolean;
}

const pollMs = 50;
/** Starting includes making the database cluster, and a canary VM the first time after a boot of the machine. */
const startTimeoutMs = 3 * deadlines.serverStart;
const logTailLines = 20;

/**
 * The server to talk to: `WRENN_API_URL` with `WRENN_API_KEY`, else the local one.
 * @throws WrennError `server_unreachable` when no local server has been started.
 */
export async function connectToServer(layout: Layout, env: NodeJS.ProcessEnv = process.env): Promise<Connection> {
  const [url, apiKey] = [env["WRENN_API_URL"], env["WRENN_API_KEY"]];
  if (url !== undefined && apiKey !== undefined) {
    return { api: { apiUrl: url, apiKey }, url, isLocal: false };
  }
  const credentials = await readCredentials(layout);
  if (credentials === null) {
    throw new WrennError("server_unreachable", { message: `No Wrenn server has been started in ${layout.root}.` });
  }
  const api = { apiUrl: credentials.url, apiKey: apiKey ?? credentials.api_key };
  return { api, url: credentials.url, isLocal: true };
}

/** Whether a server is named by the environment, so that none is started here. */
export function usesRemoteServer(env: NodeJS.ProcessEnv = process.env): boolean {
  return env["WRENN_API_URL"] !== undefined && env["WRENN_API_KEY"] !== undefined;
}

/**
 * The local server that runs and is ready, waiting for one that is just starting or stopping; null when there is none.
 * @throws WrennError `server_unreachable` when it is neither ready nor gone in time.
 */
export async function findReadyServer(layout: Layout, signal?: AbortSignal): Promise<ServerRecord | null> {
  const deadline = performance.now() + startTimeoutMs;
  for (;;) {
    const record = await readLiveServer(layout);
    if (record === null || record.state === "ready") return record;
    if (performance.now() > deadline) {
      throw new WrennError("server_unreachable", {
        message: `The server (pid ${record.identity.pid}) has been ${record.state} for ${startTimeoutMs / 1_000} s.`,
        suggestion: `Look at its log, ${layout.log("server")}, or stop it with \`wrenn down\`.`,
      });
    }
    await delay(pollMs, undefined, signal === undefined ? {} : { signal });
  }
}

/**
 * Starts a server that outlives this process, and waits until it is ready.
 * @throws WrennError what kept it from starting, or with the end of its log.
 */
export async function startServer(layout: Layout, signal?: AbortSignal): Promise<ServerRecord> {
  await prepareDirectories(layout);
  const logFile = layout.log("server");
  await rotateLog(logFile);
  const child = await startDaemon(process.execPath, [cliEntry, "up", "--no-logs"], {
    // Whoever starts it in the background has set the machine up, and has a terminal to show that on.
    env: { ...process.env, WRENN_SETUP: "never" },
    logFile,
  });
  const identity = await identifyProcess(child.pid);
  const ready = identity === null ? null : await waitUntilReady(layout, identity, signal);
  if (ready !== null) return ready;
  await Promise.race([child.exited, delay(1_000)]);
  // Somebody else's server may have been quicker.
  const other = await findReadyServer(layout, signal);
  if (other !== null) return other;
  throw await explainFailure(layout, identity, logFile);
}

/** The record of the server once it is ready; null when it has ended or the deadline has passed before that. */
async function waitUntilReady(
  layout: Layout,
  identity: ProcessIdentity,
  signal: AbortSignal | undefined,
): Promise<ServerRecord | null> {
  const deadline = performance.now() + startTimeoutMs;
  while ((await isAlive(identity)) && performance.now() < deadline) {
    const record = await readServerRecord(layout);
    if (record?.identity.pid === identity.pid && record.state === "ready") return record;
    await delay(pollMs, undefined, signal === undefined ? {} : { signal });
  }
  return null;
}

async function explainFailure(layout: Layout, identity: ProcessIdentity | null, logFile: string): Promise<WrennError> {
  const record = await readServerRecord(layout);
  if (record !== null && record.identity.pid === identity?.pid && record.error !== undefined) {
    const { code, message, suggestion } = record.error;
    if (isErrorCode(code)) return new WrennError(code, { message, suggestion });
  }
  return new WrennError("server_unreachable", {
    message: `The server did not start. Its log, ${logFile}, ends with:\n${await tailLog(logFile, logTailLines)}`,
    suggestion: "Mend what the log names, then run the command again; `wrenn doctor` may help.",
  });
}
