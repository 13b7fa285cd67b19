/**
 * Knows when this replica's sandboxes were last used, and has it written down every now and then: no request costs the database
 * anything. What could not be written is kept until it can be, so that an outage loses nothing.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, intervals } from "@wrenn/contract";
import type { SandboxId } from "@wrenn/contract";
import type { Logger } from "pino";
import { recordActivity, removeReplica } from "../store/activity.ts";
import { isDatabaseAway } from "../store/database.ts";
import type { Store } from "../store/database.ts";

/** Between two records; after a longer one callers may not have reached their sandboxes either. */
const longestGapMs = 30 * intervals.sandboxActivity;

export class Activity {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #replicaId = randomUUID();
  /** How many requests, streams and connections of each sandbox are open. */
  readonly #open = new Map<SandboxId, number>();
  /** When each was last used, on this process's clock; only what is not recorded yet. */
  readonly #unrecorded = new Map<SandboxId, number>();
  /** The database's time at the last success: all that happened before it will be in the next record. */
  #recordedAt: Date | null = null;
  /** Since when records have succeeded without a gap. */
  #inContactSince: number | null = null;
  #isFailing = false;

  constructor(store: Store, log: Logger) {
    this.#store = store;
    this.#log = log;
  }

  /** The sandbox is used right now. */
  touch(id: SandboxId): void {
    this.#unrecorded.set(id, performance.now());
  }

  /** The sandbox is in use until the function that is returned is called, which may be more than once. */
  hold(id: SandboxId): () => void {
    this.#open.set(id, (this.#open.get(id) ?? 0) + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const left = (this.#open.get(id) ?? 0) - 1;
      if (left > 0) this.#open.set(id, left);
      else this.#open.delete(id);
      this.touch(id);
    };
  }

  /** How long ago the sandbox was used, in milliseconds; undefined where this replica knows no more than the database. */
  age(id: SandboxId): number | undefined {
    if (this.#open.has(id)) return 0;
    const at = this.#unrecorded.get(id);
    return at === undefined ? undefined : performance.now() - at;
  }

  /** How long records have succeeded without a gap, in milliseconds; null while they do not. */
  contactMs(): number | null {
    return this.#inContactSince === null ? null : performance.now() - this.#inContactSince;
  }

  /** One round of writing down. The first one also has other replicas wait for those to come. */
  async record(): Promise<void> {
    const began = performance.now();
    const lastUsed = new Map(this.#unrecorded);
    for (const id of this.#open.keys()) lastUsed.set(id, began);
    const used = new Map([...lastUsed].map(([id, at]) => [id, began - at]));
    try {
      const at = await recordActivity(this.#store, {
        replicaId: this.#replicaId,
        completeUntil: this.#recordedAt,
        used,
      });
      this.#noteContact(at, began);
    } catch (error) {
      this.#inContactSince = null;
      if (!isDatabaseAway(error)) throw error;
      // An outage is one line, not one every second.
      if (!this.#isFailing)
        this.#log.error({ err: error }, "cannot record which sandboxes are used, so none times out");
      this.#isFailing = true;
      return;
    }
    if (this.#isFailing) this.#log.info("which sandboxes are used can be recorded again");
    this.#isFailing = false;
    for (const [id, at] of lastUsed) if (this.#unrecorded.get(id) === at) this.#unrecorded.delete(id);
  }

  /** Records what is left, and has no other replica wait for this one any more. */
  async close(): Promise<void> {
    const stopWaiting = new AbortController();
    const late = delay(deadlines.databaseConnect, undefined, { signal: stopWaiting.signal }).catch(() => undefined);
    const leave = async (): Promise<void> => {
      await this.record();
      await removeReplica(this.#store, this.#replicaId);
    };
    const left = leave().catch((error: unknown) => {
      this.#log.warn({ err: error }, "could not say that this server stops; sandboxes time out later");
    });
    await Promise.race([left, late]);
    stopWaiting.abort();
  }

  /** A machine that slept, or a database that hung, is a gap too, though nothing has failed. */
  #noteContact(at: Date, began: number): void {
    const gapMs = this.#recordedAt === null ? 0 : at.getTime() - this.#recordedAt.getTime();
    if (this.#inContactSince === null || gapMs > longestGapMs) this.#inContactSince = began;
    if (gapMs >= 0) this.#recordedAt = at;
  }
}
