/** Puts the parts together: start, stop, and what each part tells the others. */
import { deadlines, parseId, parseUuid, platformTeamId, WrennError } from "@wrenn/contract";
import type { SandboxId, SandboxStatus } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import type { Logger } from "pino";
import type { Config, ListenAddress } from "./config.ts";
import { HostClients } from "./hosts/host-client.ts";
import { TunnelPools } from "./hosts/tunnel-pools.ts";
import { leastLoaded } from "./hosts/scheduler.ts";
import { buildApi } from "./http/app.ts";
import { Streams } from "./http/streams/streams.ts";
import type { StreamTiming } from "./http/streams/streams.ts";
import { countApiRequests } from "./metrics/api-requests.ts";
import { countRefusedConnections } from "./metrics/connections.ts";
import { countDataPlane } from "./metrics/data-plane.ts";
import { watchDatabase } from "./metrics/database.ts";
import { watchHosts } from "./metrics/hosts.ts";
import { watchHeldBack } from "./metrics/held-back.ts";
import { createRegistry } from "./metrics/registry.ts";
import { timeSteps } from "./metrics/steps.ts";
import { countStreams } from "./metrics/streams.ts";
import { DataPlane } from "./proxy/data-plane.ts";
import { Listener } from "./server.ts";
import { Activity } from "./services/activity.ts";
import { AccessTokens } from "./services/access-tokens.ts";
import { ApiKeys } from "./services/api-keys.ts";
import { Commands } from "./services/commands.ts";
import { Creations } from "./services/creations.ts";
import { Forks } from "./services/forks.ts";
import { Freezing } from "./services/freezing.ts";
import { Guests } from "./services/guests.ts";
import { HealthCheck } from "./services/health.ts";
import { HeldBack } from "./services/held-back.ts";
import { IdempotencyKeys } from "./services/idempotency-keys.ts";
import { ensureLocalCredentials } from "./services/local-credentials.ts";
import { Observation } from "./services/observation.ts";
import { Operations } from "./services/operations.ts";
import { Recoveries } from "./services/recoveries.ts";
import { SandboxCreation } from "./services/sandbox-creation.ts";
import { SandboxLosses } from "./services/sandbox-losses.ts";
import { SandboxTargets } from "./services/sandbox-targets.ts";
import { Sandboxes } from "./services/sandboxes.ts";
import { Snapshots } from "./services/snapshots.ts";
import { openDatabase } from "./store/database.ts";
import { ensureHost } from "./store/hosts.ts";
import { forgetKeyUses } from "./store/idempotency-keys.ts";
import { migrate, readMigrations } from "./store/migrate.ts";
import { PeriodicTask } from "./tasks/periodic-task.ts";
import { Reconciler } from "./tasks/reconcile-hosts.ts";
import { timeOutSandboxes } from "./tasks/time-out-sandboxes.ts";

/** Tighter in tests, which cannot wait for what takes minutes by design, nor fill what is large. */
export interface ServerBounds {
  readonly reconcileMs: number;
  /** After so long a round of the reconciler, or of timeouts, is given up and the next one begins. */
  readonly roundMs: number;
  readonly hostSilenceMs: number;
  readonly drainMs: number;
  readonly sandboxActivityMs: number;
  readonly sandboxTimeoutsMs: number;
  readonly sandboxTimeoutsResumeMs: number;
  readonly idempotencyKeysMs: number;
  /** A replica that says nothing for so long is gone. */
  readonly replicaSilenceMs: number;
  /** How long the head of a request may take, and the body of one to the API. */
  readonly requestHeadMs: number;
  readonly requestBodyMs: number;
  readonly maxConnections: number;
  /** How long a client may send nothing of an upload. */
  readonly uploadIdleMs: number;
  readonly streams: StreamTiming;
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
export async function startControlPlane(config: Config, log: Logger, bounds: ServerBounds): Promise<ControlPlane> {
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
    const metrics = createRegistry();
    watchDatabase(metrics, database);
    const tokens = await AccessTokens.open(store);
    const apiKeys = new ApiKeys(store, log);
    const targets = new SandboxTargets(store);
    const pools = new TunnelPools();
    undo.push(async () => pools.close());
    const timeStepsOf = timeSteps(metrics);
    const clients = new HostClients((operation, sandbox, address) => {
      timeStepsOf(operation, sandbox);
      // While it is written down that the sandbox runs, and its owner hears of it.
      if (operation !== "pause") pools.openAhead(parseUuid("sandbox", sandbox.sandboxId), address);
    });
    undo.push(async () => {
      clients.close();
    });
    const onChange = (id: SandboxId, status?: SandboxStatus): void => {
      targets.invalidate(id);
      // Nothing of a sandbox that is paused or destroyed answers any more, and what it was asked must not be taken up by another connection.
      // On the way there its connections are what they were: a pause may fail, and those that are open have to be found in the end.
      if (status === "paused" || status === "stopped") pools.sever(id);
      else if (status === undefined) pools.release(id);
      // Somebody waits for it to run, and reaches it next.
      else if (status === "running") targets.find(id).catch(() => undefined);
    };
    const onUnresolved = (): void => {
      reconciliation.nudge();
    };
    const operated = { store, clients, tokens, activity, log, onChange, onUnresolved };
    const operations = new Operations(operated);
    const sandboxes = new Sandboxes(operated, operations, targets);
    const creation = new SandboxCreation(operated, operations, leastLoaded);
    const creations = new Creations({ store, creation, keys: await IdempotencyKeys.open(store), log });
    const freezing = new Freezing(operated, operations);
    const forks = new Forks(operated, operations, sandboxes);
    const recoveries = new Recoveries(operated, operations);
    const snapshots = new Snapshots(operated, operations);
    const heldBack = new HeldBack(log);
    watchHeldBack(metrics, heldBack);
    const reconciler = new Reconciler({
      store,
      pool,
      clients,
      sandboxes,
      snapshots,
      heldBack,
      trustDatabase: config.trustDatabase,
      log,
      onChange,
      onLook: watchHosts(metrics),
      intervalMs: bounds.reconcileMs,
      hostSilenceMs: bounds.hostSilenceMs,
    });
    const reconciliation = new PeriodicTask({
      name: "reconcile hosts",
      intervalMs: bounds.reconcileMs,
      deadlineMs: bounds.roundMs,
      log,
      run: async (signal) => reconciler.run(signal),
    });
    const activityRecording = new PeriodicTask({
      name: "record activity",
      intervalMs: bounds.sandboxActivityMs,
      deadlineMs: deadlines.databaseStatement,
      log,
      run: async () => activity.record(),
    });
    const timeouts = new PeriodicTask({
      name: "time out sandboxes",
      intervalMs: bounds.sandboxTimeoutsMs,
      deadlineMs: bounds.roundMs,
      log,
      run: async (signal) => {
        const { replicaSilenceMs, sandboxTimeoutsResumeMs: resumeMs } = bounds;
        await timeOutSandboxes({ store, sandboxes, freezing, activity, log, replicaSilenceMs, resumeMs }, signal);
      },
    });
    const keyForgetting = new PeriodicTask({
      name: "forget idempotency keys",
      intervalMs: bounds.idempotencyKeysMs,
      deadlineMs: deadlines.databaseStatement,
      log,
      run: async () => forgetKeyUses(store, deadlines.idempotencyKey),
    });
    const onTunnelFailure = (id: SandboxId): void => {
      targets.expire(id);
      reconciliation.nudge();
    };
    const dataPlane = new DataPlane({
      apiKeys,
      tokens,
      targets,
      pools,
      activity,
      log,
      observer: countDataPlane(metrics, pools),
      onTunnelFailure,
    });
    undo.push(async () => {
      dataPlane.endUpgraded();
    });
    const guests = new Guests({ targets, tokens, pools, activity });
    const commands = new Commands({ guests, losses: new SandboxLosses({ store, onTunnelFailure }), log });
    undo.push(async () => commands.abandonments.close());
    const { allowedOrigins } = config;
    const streams = new Streams({
      apiKeys,
      commands,
      allowedOrigins,
      timing: bounds.streams,
      observer: countStreams(metrics),
      log,
    });

    await ensureHost(store, { name: "local", address: `unix:${config.layout.hostAgentSocket}` });

    let openDoors: () => void = () => undefined;
    const ready = new Promise<void>((resolve) => {
      openDoors = resolve;
    });
    const health = new HealthCheck(store, clients, heldBack);
    const observation = new Observation({ targets, clients, guests });
    const operators = new Set([platformTeamId]);
    const stopping = new AbortController();
    const services = {
      store,
      sandboxes,
      creations,
      freezing,
      forks,
      recoveries,
      snapshots,
      tokens,
      apiKeys,
      commands,
      health,
      observation,
      guests,
      metrics,
      requestObserver: countApiRequests(metrics),
      metricsAccess: { operators, listenHost: config.listen.host },
      requestBodyMs: bounds.requestBodyMs,
      uploadIdleMs: bounds.uploadIdleMs,
      stopping: stopping.signal,
      log,
    };
    let listener: Listener | undefined;
    const app = await buildApi(services, (api) => {
      listener = new Listener({
        dataPlane,
        streams,
        api,
        ready,
        log,
        allowedOrigins: config.allowedOrigins,
        requestHeadMs: bounds.requestHeadMs,
        maxConnections: bounds.maxConnections,
        onConnectionRefused: countRefusedConnections(metrics),
      });
      return listener.server;
    });
    if (listener === undefined) throw new WrennError("internal", { message: "The API has asked for no listener." });
    const opened = listener;
    undo.push(async () => app.close());
    const address = await opened.listen(config.listen);
    undo.push(async () => {
      health.phase = "stopping";
      stopping.abort();
      await opened.close(bounds.drainMs);
    });
    const url = urlOf({ host: config.listen.host, port: address.port });
    if (config.localCredentials !== undefined) {
      const { team_id } = await ensureLocalCredentials({ store, apiKeys, log }, config.localCredentials, url);
      operators.add(parseId("team", team_id));
    }
    for (const task of [reconciliation, activityRecording, timeouts, keyForgetting]) {
      task.start();
      undo.push(async () => task.stop());
    }
    health.phase = "serving";
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
