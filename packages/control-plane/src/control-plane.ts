/** Puts the parts together: start, stop, and what each part tells the others. */
import { deadlines, WrennError } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import type { Logger } from "pino";
import type { Config, ListenAddress } from "./config.ts";
import { HostClients } from "./hosts/host-client.ts";
import { TunnelPools } from "./hosts/tunnel-pools.ts";
import { leastLoaded } from "./hosts/scheduler.ts";
import { buildApi } from "./http/app.ts";
import { DataPlane } from "./proxy/data-plane.ts";
import { Listener } from "./server.ts";
import { Activity } from "./services/activity.ts";
import { AccessTokens } from "./services/access-tokens.ts";
import { ApiKeys } from "./services/api-keys.ts";
import { Creations } from "./services/creations.ts";
import { HealthCheck } from "./services/health.ts";
import { IdempotencyKeys } from "./services/idempotency-keys.ts";
import { ensureLocalCredentials } from "./services/local-credentials.ts";
import { SandboxTargets } from "./services/sandbox-targets.ts";
import { Sandboxes } from "./services/sandboxes.ts";
import { openDatabase } from "./store/database.ts";
import { ensureHost } from "./store/hosts.ts";
import { forgetKeyUses } from "./store/idempotency-keys.ts";
import { migrate, readMigrations } from "./store/migrate.ts";
import { destroyIdleSandboxes } from "./tasks/destroy-idle-sandboxes.ts";
import { PeriodicTask } from "./tasks/periodic-task.ts";
import { Reconciler } from "./tasks/reconcile-hosts.ts";

/** Shorter in tests, which cannot wait for what takes minutes by design. */
export interface Timing {
  readonly reconcileMs: number;
  readonly hostSilenceMs: number;
  readonly drainMs: number;
  readonly sandboxActivityMs: number;
  readonly sandboxTimeoutsMs: number;
  readonly idempotencyKeysMs: number;
  /** A replica that says nothing for so long is gone. */
  readonly replicaSilenceMs: number;
}

export interface ControlPlane {
  readonly url: string;
  readonly apiKeys: ApiKeys;
  stop(): Promise<void>;
}

/**
 * Returns once requests are answered.
 * @throws WrennError `database_unavailable`, `database_incompatible`, `port_taken`
 */
export async function startControlPlane(config: Config, log: Logger, timing: Timing): Promise<ControlPlane> {
  const migrations = await readMigrations();
  const applied = await whenDatabaseAnswers(async () => migrate(config.databaseUrl, migrations));
  if (applied.length > 0) log.info({ applied }, "brought the database to this version");

  const undo: (() => Promise<void>)[] = [];
  const stop = async (): Promise<void> => {
    for (const step of undo.splice(0).toReversed()) await step();
  };
  try {
    const database = openDatabase(config.databaseUrl, (error) => {
      log.warn({ err: error }, "a database connection broke");
    });
    undo.push(async () => database.close());
    const { store, pool } = database;
    const activity = new Activity(store, log);
    // Before the first request, so that other replicas wait for what this one has to record.
    await activity.record();
    undo.push(async () => activity.close());
    const clients = new HostClients();
    undo.push(async () => {
      clients.close();
    });
    const tokens = await AccessTokens.open(store);
    const apiKeys = new ApiKeys(store, log);
    const targets = new SandboxTargets(store);
    const pools = new TunnelPools();
    undo.push(async () => pools.close());
    const onChange = (id: SandboxId): void => {
      targets.invalidate(id);
      pools.release(id);
    };
    const sandboxes = new Sandboxes({
      store,
      clients,
      scheduler: leastLoaded,
      tokens,
      targets,
      activity,
      log,
      onChange,
    });
    const creations = new Creations({ store, sandboxes, keys: await IdempotencyKeys.open(store), log });
    const reconciler = new Reconciler({
      store,
      pool,
      clients,
      sandboxes,
      log,
      onChange,
      intervalMs: timing.reconcileMs,
      hostSilenceMs: timing.hostSilenceMs,
    });
    const reconciliation = new PeriodicTask({
      name: "reconcile hosts",
      intervalMs: timing.reconcileMs,
      deadlineMs: deadlines.reconcileRound,
      log,
      run: async (signal) => reconciler.run(signal),
    });
    const activityRecording = new PeriodicTask({
      name: "record activity",
      intervalMs: timing.sandboxActivityMs,
      deadlineMs: deadlines.databaseStatement,
      log,
      run: async () => activity.record(),
    });
    const idleDestruction = new PeriodicTask({
      name: "destroy idle sandboxes",
      intervalMs: timing.sandboxTimeoutsMs,
      deadlineMs: deadlines.reconcileRound,
      log,
      run: async (signal) =>
        destroyIdleSandboxes({ store, sandboxes, activity, log, replicaSilenceMs: timing.replicaSilenceMs }, signal),
    });
    const keyForgetting = new PeriodicTask({
      name: "forget idempotency keys",
      intervalMs: timing.idempotencyKeysMs,
      deadlineMs: deadlines.databaseStatement,
      log,
      run: async () => forgetKeyUses(store, deadlines.idempotencyKey),
    });
    const dataPlane = new DataPlane({
      apiKeys,
      tokens,
      targets,
      pools,
      activity,
      log,
      onTunnelFailure: (id) => {
        targets.expire(id);
        reconciliation.nudge();
      },
    });
    undo.push(async () => {
      dataPlane.endUpgraded();
    });

    await ensureHost(store, { name: "local", address: `unix:${config.layout.hostAgentSocket}` });

    let openDoors: () => void = () => undefined;
    const ready = new Promise<void>((resolve) => {
      openDoors = resolve;
    });
    const health = new HealthCheck(store, clients);
    let listener: Listener | undefined;
    const app = await buildApi({ sandboxes, creations, tokens, apiKeys, health, log }, (handle) => {
      listener = new Listener(dataPlane, handle, ready);
      return listener.server;
    });
    if (listener === undefined) throw new WrennError("internal", { message: "The API has asked for no listener." });
    const opened = listener;
    undo.push(async () => app.close());
    const address = await opened.listen(config.listen);
    undo.push(async () => opened.close(timing.drainMs));
    const url = urlOf({ host: config.listen.host, port: address.port });
    if (config.localCredentials !== undefined) {
      await ensureLocalCredentials({ store, apiKeys, log }, config.localCredentials, url);
    }
    for (const task of [reconciliation, activityRecording, idleDestruction, keyForgetting]) {
      task.start();
      undo.push(async () => task.stop());
    }
    openDoors();
    log.info({ url }, "listening");
    return { url, apiKeys, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** A database that is starting too is waited for; any other answer is final. */
async function whenDatabaseAnswers<Result>(work: () => Promise<Result>): Promise<Result> {
  let last: unknown;
  const done = await pollUntil(
    async () => {
      try {
        return { result: await work() };
      } catch (error) {
        if (!(error instanceof WrennError && error.code === "database_unavailable")) throw error;
        last = error;
        return null;
      }
    },
    { timeoutMs: deadlines.serverStart, intervalMs: 250 },
  );
  if (done === null) throw last;
  return done.result;
}

/** How to reach the server from its own machine. */
function urlOf({ host, port }: ListenAddress): string {
  const reachable = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host;
  return `http://${reachable.includes(":") ? `[${reachable}]` : reachable}:${port}`;
}
