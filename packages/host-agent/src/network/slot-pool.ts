/** The pool of network slots: made ahead, lent to one sandbox at a time, and never lent again: a used one is removed whole. */
import { intervals, WrennError } from "@wrenn/contract";
import { runSteps, tryAll, withSignals } from "@wrenn/system";
import { enableForwarding, openTunDevice } from "./host-settings.ts";
import { ensureHostTable, installHostTable, removeHostTable } from "./host-table.ts";
import { findSlots, makeNamespace, removeNamespace } from "./namespace.ts";
import { checkRange } from "./range-check.ts";
import { SlotPlan } from "./slot.ts";
import type { PlannedSlot, Slot } from "./slot.ts";

export { forwardingObstacle } from "./forwarding-obstacle.ts";
export { defaultSlotCidr, instanceTag } from "./slot.ts";
export type { Slot } from "./slot.ts";

export interface NetworkConfig {
  /** WRENN_SLOT_CIDR: the IPv4 range slots take their addresses from, two each. `defaultSlotCidr` when it is not set. */
  readonly cidr: string;
  /** Tells apart the instances of one host: see `instanceTag`. */
  readonly instance: string;
  /** How many slots are kept ready. */
  readonly poolSize: number;
  /** Told of what failed in the background and will be tried again. Default: a process warning. */
  readonly onBackgroundFailure?: (error: unknown) => void;
}

/**
 * One per instance and host: whoever opens it holds the host agent's lock. Every index is free, in the making, ready, in use or
 * in quarantine (being removed, or waiting for that to succeed); all but the first are in `#taken`.
 */
export class SlotPool {
  readonly #config: NetworkConfig;
  readonly #plan: SlotPlan;
  readonly #taken = new Set<number>();
  readonly #ready: PlannedSlot[] = [];
  readonly #inUse = new Map<number, PlannedSlot>();
  readonly #quarantined = new Map<number, PlannedSlot>();
  readonly #removals = new Map<number, Promise<void>>();
  readonly #makings = new Set<Promise<PlannedSlot>>();
  readonly #closing = new AbortController();
  #lastIndex = 0;
  #upkeep: Promise<void> = Promise.resolve();
  #upkeepRuns = false;
  #retryTimer: NodeJS.Timeout | undefined;
  #refillTimer: NodeJS.Timeout | null = null;
  #rulesTimer: NodeJS.Timeout | undefined;
  #rulesAreDue = false;

  private constructor(config: NetworkConfig) {
    this.#config = config;
    this.#plan = new SlotPlan(config.cidr, config.instance);
  }

  /**
   * Prepares the host, keeps the slots of adopted sandboxes as they are, removes all others of this instance that an earlier
   * process left, and starts to fill the pool in the background.
   * @param inUse indexes of the slots of adopted sandboxes. Their traffic is not interrupted.
   * @throws WrennError `setup_failed` when the range is malformed or in use; `network_setup_failed`, `dependency_missing` or
   * `subprocess_failed` when the host cannot be prepared.
   */
  static async open(config: NetworkConfig, inUse: readonly number[]): Promise<SlotPool> {
    const pool = new SlotPool(config);
    for (const index of inUse) {
      pool.#inUse.set(index, pool.#plan.slot(index));
      pool.#taken.add(index);
    }
    await runSteps([
      { name: "check the range", run: () => checkRange(pool.#plan, [...pool.#inUse.values()]) },
      {
        name: "install the host's rules",
        run: () => installHostTable(pool.#plan),
        undo: async () => {
          if (pool.#inUse.size === 0) await removeHostTable(pool.#plan);
        },
      },
      { name: "enable forwarding", run: enableForwarding },
      { name: "open the tun device to engines", run: openTunDevice },
      { name: "remove stale slots", run: () => pool.#removeStale() },
    ]);
    pool.#rulesTimer = setInterval(() => {
      pool.#rulesAreDue = true;
      pool.#startUpkeep();
    }, intervals.slotRules).unref();
    pool.#startUpkeep();
    return pool;
  }

  /**
   * A slot for one sandbox: a ready one at once, else one made now.
   * @throws WrennError `no_capacity` when every slot of the range is taken, `network_setup_failed` when one cannot be made.
   */
  async acquire(signal?: AbortSignal): Promise<Slot> {
    signal?.throwIfAborted();
    this.#refuseWhenClosing();
    if (this.#ready.length === 0 && this.#taken.size >= this.#plan.lastIndex) {
      // The background may be about to finish the last one there is.
      await this.#upkeep;
      signal?.throwIfAborted();
      this.#refuseWhenClosing();
    }
    const slot = this.#ready.shift() ?? (await this.#makeNow(signal));
    this.#inUse.set(slot.index, slot);
    this.#refillSoon();
    return slot;
  }

  /**
   * Ends a loan. The slot is removed with all its state and another is made ready in its stead. Releasing one again is harmless,
   * also when its index has a new tenant by then.
   * @throws WrennError `network_setup_failed` naming everything that could not be removed. The slot then stays in quarantine and
   * is tried again in the background.
   */
  async release(slot: Slot): Promise<void> {
    const held = this.#inUse.get(slot.index) ?? this.#quarantined.get(slot.index);
    if (held === undefined || held !== slot) return;
    try {
      await this.#remove(held);
    } catch (cause) {
      this.#retryLater();
      throw new WrennError("network_setup_failed", {
        message: `Slot ${slot.index} could not be removed: ${cause instanceof Error ? cause.message : String(cause)}`,
        suggestion: "The host agent tries again by itself; run `wrenn doctor` on the host if this persists.",
        details: { slot: slot.index },
        cause,
      });
    }
    this.#startUpkeep();
  }

  /** The slot of an adopted sandbox, whose index was given to `open`. */
  adopt(index: number): Slot {
    const slot = this.#inUse.get(index);
    if (slot === undefined) {
      throw new WrennError("internal", { message: `Slot ${index} was not given to the pool as being in use.` });
    }
    return slot;
  }

  stats(): { ready: number; inUse: number; quarantined: number } {
    return { ready: this.#ready.length, inUse: this.#inUse.size, quarantined: this.#quarantined.size };
  }

  /**
   * Ends background work and removes every slot that is not in use; with the last of them the host's rules too. Slots in use
   * and the rules they need stay, for the next process to adopt.
   */
  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#retryTimer);
    if (this.#refillTimer !== null) clearTimeout(this.#refillTimer);
    clearInterval(this.#rulesTimer);
    await this.#upkeep;
    await Promise.allSettled(this.#makings);
    const idle = [...this.#ready.splice(0), ...this.#quarantined.values()];
    await tryAll([
      ...idle.map((slot) => ({ name: `remove slot ${slot.index}`, run: () => this.#remove(slot) })),
      {
        name: "remove the host's rules",
        run: async () => {
          if (this.#taken.size === 0) await removeHostTable(this.#plan);
        },
      },
    ]);
  }

  /** Makes a slot on a fresh index. A failure leaves the index in quarantine until nothing of it is left. */
  async #make(signal: AbortSignal): Promise<PlannedSlot> {
    const slot = this.#plan.slot(this.#takeIndex());
    try {
      await makeNamespace(slot, signal);
      return slot;
    } catch (error) {
      this.#quarantined.set(slot.index, slot);
      throw error;
    }
  }

  /** As `#make`, for a caller who waits. */
  async #makeNow(signal: AbortSignal | undefined): Promise<PlannedSlot> {
    const closing = this.#closing.signal;
    const making =
      signal === undefined ? this.#make(closing) : withSignals([signal, closing], (either) => this.#make(either));
    this.#makings.add(making);
    try {
      return await making;
    } catch (error) {
      this.#refuseWhenClosing();
      this.#startUpkeep();
      throw error;
    } finally {
      this.#makings.delete(making);
    }
  }

  /**
   * The next free index after the last one taken, so that an index rests as long as possible: what the outside still sends to a
   * former tenant's flows finds nobody.
   */
  #takeIndex(): number {
    const count = this.#plan.lastIndex;
    for (let step = 0; step < count; step++) {
      const index = ((this.#lastIndex + step) % count) + 1;
      if (this.#taken.has(index)) continue;
      this.#taken.add(index);
      this.#lastIndex = index;
      return index;
    }
    throw new WrennError("no_capacity", {
      message: `All ${count} network slots of this host are taken.`,
      details: { cidr: this.#plan.cidr },
    });
  }

  /** Removes a slot; its index is free again only when nothing is left of it. Several callers share one attempt. */
  async #remove(slot: PlannedSlot): Promise<void> {
    this.#inUse.delete(slot.index);
    this.#quarantined.set(slot.index, slot);
    const removal = this.#removals.get(slot.index) ?? removeNamespace(slot);
    this.#removals.set(slot.index, removal);
    try {
      await removal;
      if (this.#removals.get(slot.index) === removal) {
        this.#quarantined.delete(slot.index);
        this.#taken.delete(slot.index);
      }
    } finally {
      if (this.#removals.get(slot.index) === removal) this.#removals.delete(slot.index);
    }
  }

  async #removeStale(): Promise<void> {
    for (const index of await findSlots(this.#plan)) {
      if (this.#inUse.has(index)) continue;
      if (index > this.#plan.lastIndex) {
        // Of an earlier, larger range: beyond this one's indexes there is nothing that could collide with it.
        await this.#attempt(() => removeNamespace(this.#plan.names(index)));
        continue;
      }
      this.#taken.add(index);
      await this.#attempt(() => this.#remove(this.#plan.slot(index)));
    }
  }

  #startUpkeep(): void {
    if (this.#upkeepRuns || this.#closing.signal.aborted) return;
    this.#upkeepRuns = true;
    this.#upkeep = this.#keepUp();
  }

  /** Puts back the host's rules, fills the pool, then tries again to remove what is in quarantine. Never rejects. */
  async #keepUp(): Promise<void> {
    const { signal } = this.#closing;
    if (this.#rulesAreDue) {
      this.#rulesAreDue = false;
      await this.#attempt(() => ensureHostTable(this.#plan));
    }
    await this.#attempt(async () => {
      while (!signal.aborted && this.#ready.length < this.#config.poolSize && this.#taken.size < this.#plan.lastIndex) {
        this.#ready.push(await this.#make(signal));
      }
    });
    for (const slot of this.#quarantined.values()) {
      if (!signal.aborted) await this.#attempt(() => this.#remove(slot));
    }
    this.#upkeepRuns = false;
  }

  /** Work that nobody waits for: a failure is reported and leads to another round later. */
  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (this.#closing.signal.aborted) return;
      this.#retryLater();
      const report = this.#config.onBackgroundFailure ?? warn;
      report(error);
    }
  }

  /**
   * Whoever takes a slot is about to start an engine with it, and needs the processors more than the next one does, who can make a slot for
   * itself. Each that is taken puts the filling off, but not once the pool is empty: it would stay so where they are taken all the time.
   */
  #refillSoon(): void {
    if (this.#closing.signal.aborted || (this.#ready.length === 0 && this.#refillTimer !== null)) return;
    if (this.#refillTimer !== null) clearTimeout(this.#refillTimer);
    this.#refillTimer = setTimeout(() => {
      this.#refillTimer = null;
      this.#startUpkeep();
    }, intervals.slotRefill).unref();
  }

  #retryLater(): void {
    clearTimeout(this.#retryTimer);
    if (this.#closing.signal.aborted) return;
    this.#retryTimer = setTimeout(() => {
      this.#startUpkeep();
    }, intervals.slotRetry).unref();
  }

  #refuseWhenClosing(): void {
    if (this.#closing.signal.aborted) throw new WrennError("shutting_down");
  }
}

function warn(error: unknown): void {
  process.emitWarning(error instanceof Error ? error : String(error));
}
