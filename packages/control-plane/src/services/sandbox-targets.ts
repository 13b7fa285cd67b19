/** Where each sandbox is and whether it may be reached, remembered briefly: the data plane asks for every request. */
import { can, intervals, WrennError } from "@wrenn/contract";
import type { SandboxId, TeamId } from "@wrenn/contract";
import { isDatabaseAway } from "../store/database.ts";
import type { Store } from "../store/database.ts";
import { findSandboxTarget } from "../store/sandboxes.ts";
import type { SandboxTarget } from "../store/sandboxes.ts";

export type ReachableTarget = SandboxTarget & { readonly hostAddress: string };

const maxRemembered = 10_000;

interface Remembered {
  readonly target: SandboxTarget;
  /** When the database last said so. */
  readonly confirmed: number;
  /** Until when it is believed without asking. */
  readonly until: number;
}

export class SandboxTargets {
  readonly #store: Store;
  readonly #remembered = new Map<SandboxId, Remembered>();
  /** Requests that miss together ask once. */
  readonly #asking = new Map<SandboxId, Promise<Remembered | null>>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** The target if it is remembered; undefined when it has to be asked for. */
  peek(id: SandboxId): SandboxTarget | undefined {
    const remembered = this.#remembered.get(id);
    return remembered !== undefined && remembered.until > performance.now() ? remembered.target : undefined;
  }

  /**
   * Null when there is no such sandbox. While the database is away, what was known shortly before is believed on: a host
   * agent refuses by itself what it no longer has, and users of running sandboxes need not notice.
   */
  async find(id: SandboxId): Promise<SandboxTarget | null> {
    const known = this.peek(id);
    if (known !== undefined) return known;
    const answer = this.#asking.get(id);
    if (answer !== undefined) return (await answer)?.target ?? null;
    return this.#ask(id);
  }

  /** @throws WrennError `sandbox_not_found`, also for another team's; what `assertReachable` throws when it does not run. */
  async findReachable(teamId: TeamId, id: SandboxId): Promise<ReachableTarget> {
    const target = await this.find(id);
    if (target === null || target.teamId !== teamId) throw new WrennError("sandbox_not_found");
    assertReachable(target);
    return target;
  }

  /** Has the database asked again, because something went wrong. What was known is kept for when it is away. */
  expire(id: SandboxId): void {
    const known = this.#remembered.get(id);
    if (known !== undefined) this.#remembered.set(id, { ...known, until: 0 });
  }

  /** Forgets what was known, because this replica changed it. */
  invalidate(id: SandboxId): void {
    this.#remembered.delete(id);
    // An answer on its way may be from before the change: it serves those who wait for it already, and is not remembered.
    this.#asking.delete(id);
  }

  async #ask(id: SandboxId): Promise<SandboxTarget | null> {
    const answer = this.#look(id);
    this.#asking.set(id, answer);
    try {
      const found = await answer;
      if (found !== null && this.#asking.get(id) === answer) this.#remember(id, found);
      return found?.target ?? null;
    } finally {
      if (this.#asking.get(id) === answer) this.#asking.delete(id);
    }
  }

  async #look(id: SandboxId): Promise<Remembered | null> {
    const now = performance.now();
    const until = now + intervals.sandboxTargetCache;
    try {
      const target = await findSandboxTarget(this.#store, id);
      if (target === null) return null;
      // Others may resume it at any moment, and the first request after that is to find it there.
      return { target, confirmed: now, until: can.reach(target.status) ? until : now };
    } catch (error) {
      const known = this.#remembered.get(id);
      if (known === undefined || !isDatabaseAway(error) || now - known.confirmed > intervals.withoutDatabase)
        throw error;
      return { ...known, until };
    }
  }

  #remember(id: SandboxId, remembered: Remembered): void {
    if (this.#remembered.size >= maxRemembered) this.#remembered.clear();
    this.#remembered.set(id, remembered);
  }
}

/** @throws WrennError `sandbox_paused`, `sandbox_busy` or `sandbox_state_conflict` where nothing in the sandbox can be reached */
export function assertReachable(target: SandboxTarget): asserts target is ReachableTarget {
  const { status, hostAddress } = target;
  if (can.reach(status) && hostAddress !== null) return;
  const details = { status };
  if (status === "paused") throw new WrennError("sandbox_paused", { details });
  const message = `The sandbox is ${status}, so nothing in it can be reached.`;
  const isMoving = status === "pausing" || status === "resuming";
  throw new WrennError(isMoving ? "sandbox_busy" : "sandbox_state_conflict", { message, details });
}
