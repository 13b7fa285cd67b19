/** The sandboxes of this host, and the operations on them: one at a time for each. */
import { setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import { asWrennError, consoleLimits, type SandboxId, WrennError } from "@wrenn/contract";
import { KeyedLock } from "@wrenn/system";
import { ConsoleLog, type ConsolePart } from "../engines/console-log.ts";
import type { VmEnd } from "../engines/engine.ts";
import { adoptSandbox, type Inventory } from "./adopt.ts";
import type { OperationKind, SandboxContext, SandboxEntry } from "./context.ts";
import { createSandbox, type CreateRequest, factsOfRequest } from "./create.ts";
import { destroySandbox } from "./destroy.ts";
import type { Journal } from "./journal.ts";
import { reapSandbox } from "./reap.ts";

/** How bytes reach a running sandbox. */
export interface Reach {
  readonly address: string;
  /** Aborted when the sandbox ends. */
  readonly gone: AbortSignal;
}

export class Sandboxes {
  readonly #context: SandboxContext;
  readonly #entries = new Map<SandboxId, SandboxEntry>();
  readonly #lock = new KeyedLock();
  #closing = false;

  private constructor(context: SandboxContext) {
    this.#context = context;
  }

  /** Takes over what an earlier host agent left. Resolves when each of its VMs is adopted or reaped. */
  static async open(context: SandboxContext, inventory: Inventory): Promise<Sandboxes> {
    const sandboxes = new Sandboxes(context);
    for (const journal of inventory.dead) sandboxes.#add(journal);
    await Promise.all(
      inventory.running.map(async (journal) => {
        const entry = sandboxes.#add(journal);
        const end = await adoptSandbox(context, journal, entry.holdings);
        if (end === null) sandboxes.#watch(entry);
        else await sandboxes.#reap(entry, end);
        context.log.info({ sandboxId: journal.sandboxId, end: end?.code }, end === null ? "adopted" : "not adopted");
      }),
    );
    return sandboxes;
  }

  /**
   * Creates a sandbox, or joins its creation, or returns the one there is. A caller who goes away does not end the creation.
   * @throws WrennError of the step that failed; `sandbox_busy` while one of that id is being destroyed
   */
  async create(request: CreateRequest): Promise<Journal> {
    const existing = this.#entries.get(request.sandboxId);
    if (existing?.operation?.kind === "destroy") {
      throw new WrennError("sandbox_busy", { message: "The sandbox is being destroyed." });
    }
    if (existing !== undefined) {
      await existing.operation?.done;
      if (existing.journal.state !== "destroying") return existing.journal;
      throw new WrennError("sandbox_busy", { message: "The sandbox is half destroyed: destroy it again." });
    }
    if (this.#closing) throw new WrennError("shutting_down");
    const engine = await this.#context.engines.current();
    // Another call may have begun it meanwhile.
    if (this.#entries.has(request.sandboxId)) return this.create(request);
    const facts = factsOfRequest(request, engine);
    const entry = this.#add({ ...facts, state: "creating", slot: null, process: null });
    await this.#operate(entry, "create", async (signal) => {
      try {
        await createSandbox(this.#context, engine, request, entry, signal);
        this.#watch(entry);
      } catch (error) {
        this.#context.log.warn({ sandboxId: facts.sandboxId, err: error }, "creation failed");
        // Kept only when something resisted its undo: a destroy then tries again.
        if (entry.journal.state === "creating") this.#entries.delete(facts.sandboxId);
        throw error;
      }
    });
    this.#context.log.info({ sandboxId: facts.sandboxId, engine: facts.engine }, "created");
    return entry.journal;
  }

  /**
   * Frees everything of a sandbox. One that is being created is aborted; a destroy under way is joined.
   * @throws WrennError `sandbox_not_found`, or of what could not be freed: the next destroy goes on from there
   */
  async destroy(id: SandboxId): Promise<void> {
    const entry = this.#require(id);
    while (entry.operation !== null) {
      const { kind, done, abort } = entry.operation;
      if (kind === "destroy") {
        await done;
        return;
      }
      abort.abort(
        new WrennError("sandbox_state_conflict", { message: "The sandbox was destroyed while being created." }),
      );
      await settled(done);
    }
    if (!this.#entries.has(id)) return;
    await this.#operate(entry, "destroy", async () => {
      entry.gone.abort();
      await destroySandbox(this.#context, entry);
      this.#entries.delete(id);
    });
    this.#context.log.info({ sandboxId: id }, "destroyed");
  }

  /** @throws WrennError `sandbox_not_found` */
  get(id: SandboxId): Journal {
    return this.#require(id).journal;
  }

  list(): Journal[] {
    return [...this.#entries.values()].map(({ journal }) => journal);
  }

  /**
   * What the guest has printed on its console from an offset on, also of one that is being created or has died.
   * @throws WrennError `sandbox_not_found`
   */
  async readConsole(id: SandboxId, offset: number): Promise<ConsolePart> {
    const { holdings } = this.#require(id);
    await holdings.vm?.drainConsole();
    return new ConsoleLog(holdings.files.consoleLog).read(offset, consoleLimits.answerBytes);
  }

  /** @throws WrennError `sandbox_not_found`, or `sandbox_state_conflict` when it is not running */
  reach(id: SandboxId): Reach {
    const { journal, holdings, gone } = this.#require(id);
    if (journal.state !== "running" || holdings.slot === null || gone.signal.aborted) {
      throw new WrennError("sandbox_state_conflict", {
        message: `The sandbox is not running: it is ${journal.state}.`,
        details: journal.state === "dead" ? { state: "dead", death: journal.death } : { state: journal.state },
      });
    }
    return { address: holdings.slot.address, gone: gone.signal };
  }

  /** Lets creations finish for a while, aborts the rest, and lets go of the VMs, which keep running. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    const operations = [...this.#entries.values()].flatMap(({ operation }) => operation ?? []);
    await Promise.race([
      Promise.all(operations.map(({ done }) => settled(done))),
      delay(graceMs, undefined, { ref: false }),
    ]);
    for (const { kind, abort } of operations) if (kind === "create") abort.abort(new WrennError("shutting_down"));
    await Promise.all(operations.map(({ done }) => settled(done)));
    await Promise.all([...this.#entries.values()].map(async ({ holdings }) => holdings.vm?.detach()));
    for (const { gone } of this.#entries.values()) gone.abort();
  }

  #add(journal: Journal): SandboxEntry {
    const files = this.#context.layout.sandbox(journal.sandboxId);
    const gone = new AbortController();
    // One listener for each open tunnel, of which there may be any number.
    setMaxListeners(0, gone.signal);
    const entry: SandboxEntry = {
      journal,
      holdings: { files, slot: null, vm: null, process: null, memory: null },
      gone,
      operation: null,
    };
    this.#entries.set(journal.sandboxId, entry);
    return entry;
  }

  #require(id: SandboxId): SandboxEntry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new WrennError("sandbox_not_found");
    return entry;
  }

  #watch(entry: SandboxEntry): void {
    const { vm } = entry.holdings;
    const awaitEnd = async (): Promise<void> => {
      const end = await vm?.ended;
      if (end === undefined) return;
      // The creation may be writing down that the VM runs; a destroy frees everything itself, or leaves the rest to the next.
      while (entry.operation !== null) await settled(entry.operation.done);
      const known = this.#entries.get(entry.journal.sandboxId) === entry;
      if (known && entry.journal.state === "running") await this.#reap(entry, end);
    };
    void awaitEnd();
  }

  /** Never rejects: what could not be freed is logged, stays in the journal, and is freed by the destroy or the next start. */
  async #reap(entry: SandboxEntry, end: VmEnd): Promise<void> {
    const { sandboxId } = entry.journal;
    this.#context.log.warn({ sandboxId, code: end.code, reason: end.message }, "died");
    try {
      await this.#operate(entry, "reap", async () => {
        entry.gone.abort();
        await reapSandbox(this.#context, entry, end);
      });
    } catch (error) {
      this.#context.log.error({ sandboxId, err: error }, "could not free everything of a dead sandbox");
    }
  }

  async #operate(
    entry: SandboxEntry,
    kind: OperationKind,
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const abort = new AbortController();
    const done = this.#lock.run(entry.journal.sandboxId, kind, async () => {
      try {
        await work(abort.signal);
      } catch (error) {
        throw asWrennError(error);
      } finally {
        entry.operation = null;
      }
    });
    entry.operation = { kind, done, abort };
    await done;
  }
}

async function settled(promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
  } catch {
    // Whoever began it is told.
  }
}
