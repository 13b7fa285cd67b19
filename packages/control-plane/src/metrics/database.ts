/** The database as this server sees it: its connections, whether it answers, and how many sandboxes it has in which status. */
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, intervals } from "@wrenn/contract";
import type { SandboxStatus } from "@wrenn/contract";
import { Gauge } from "prom-client";
import type { Registry } from "prom-client";
import type { OpenDatabase } from "../store/database.ts";
import { countSandboxes } from "../store/sandboxes.ts";

type Counts = ReadonlyMap<SandboxStatus, number>;

export function watchDatabase(registry: Registry, { store, pool }: OpenDatabase): void {
  const counts = remembered(async () => countSandboxes(store));
  registry.registerMetric(
    new Gauge({
      name: "wrenn_database_connections",
      help: "Connections to the database, and requests that wait for one.",
      labelNames: ["state"],
      registers: [],
      collect() {
        this.set({ state: "in_use" }, pool.totalCount - pool.idleCount);
        this.set({ state: "idle" }, pool.idleCount);
        this.set({ state: "waiting" }, pool.waitingCount);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: "wrenn_database_up",
      help: "1 when the database answered when it was last asked for these metrics, else 0.",
      registers: [],
      async collect() {
        this.set((await counts()) === null ? 0 : 1);
      },
    }),
  );
  registry.registerMetric(
    new Gauge({
      name: "wrenn_sandboxes",
      help: "Sandboxes of all teams by status, without stopped ones. Absent while the database is away.",
      labelNames: ["status"],
      registers: [],
      async collect() {
        const counted = await counts();
        this.reset();
        for (const [status, count] of counted ?? []) this.set({ status }, count);
      },
    }),
  );
}

/** The latest counts, at most `intervals.metricsCache` old; null when the database does not answer soon. */
function remembered(count: () => Promise<Counts>): () => Promise<Counts | null> {
  let asking: Promise<Counts | null> | undefined;
  let latest: { readonly answer: Promise<Counts | null>; until: number } | undefined;
  // One question at a time: those that a database does not answer must not take all of its connections.
  const ask = async (): Promise<Counts | null> => {
    try {
      return await count();
    } catch {
      // That it does not answer is itself what is told.
      return null;
    } finally {
      asking = undefined;
    }
  };
  const look = async (): Promise<Counts | null> => {
    asking ??= ask();
    const answered = new AbortController();
    const late = delay(deadlines.metricsQuery, null, { signal: answered.signal }).catch(() => null);
    try {
      return await Promise.race([asking, late]);
    } finally {
      answered.abort();
    }
  };
  return async () => {
    if (latest === undefined || performance.now() > latest.until) {
      const looked = { answer: look(), until: Infinity };
      latest = looked;
      await looked.answer;
      looked.until = performance.now() + intervals.metricsCache;
    }
    return latest.answer;
  };
}
