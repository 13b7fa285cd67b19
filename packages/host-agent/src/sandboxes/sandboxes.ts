/** The sandboxes of this host, and the operations on them: one at a time for each. */
import { setTimeout as delay } from "node:timers/promises";
import {
  consoleLimits,
  minimalTemplateId,
  platformTeamId,
  type RecoverySource,
  type SandboxId,
  sandboxLimits,
  WrennError,
} from "@wrenn/contract";
import { ConsoleLog, type ConsolePart } from "../engines/console-log.ts";
import type { Engine } from "../engines/engine.ts";
import { adoptSandbox, type Inventory } from "./adopt.ts";
import type { SandboxContext, SandboxEntry } from "./context.ts";
import { copyRunning } from "./copy.ts";
import { assertSizes, type CreateRequest, factsOfRequest, startFrozenCopy } from "./create.ts";
import { Deaths } from "./deaths.ts";
import { destroySandbox } from "./destroy.ts";
import { removeDirectory } from "./free.ts";
import { GoldenSnapshots } from "./golden-snapshots.ts";
import { SandboxEntries, settled } from "./entries.ts";
import { factsOf, type SandboxFacts } from "./journal.ts";
import { journalRoots } from "./journal-roots.ts";
import { describe, type Listing } from "./listing.ts";
import { assertSameMachine, type HeldGeneration } from "../memory/generations.ts";
import type { JournalRoots } from "../memory/roots.ts";
import { pauseSandbox } from "./pause.ts";
import { recoverFromDisk, rollBack } from "./recover.ts";
import { resumeSandbox } from "./resume.ts";
import { notRunning } from "./not-running.ts";
import { findOrigin } from "./origin.ts";

/** How bytes reach a running sandbox. */
export interface Reach {
  readonly address: string;
  /** Aborted when the sandbox ends or is paused. */
  readonly gone: AbortSignal;
}

/** One copy that a fork is to make. */
export interface Fork {
  readonly sandboxId: SandboxId;
  readonly accessToken: string;
}

export class Sandboxes {
  readonly #context: SandboxContext;
  readonly #golden: GoldenSnapshots;
  readonly #entries: SandboxEntries;
  readonly #deaths: Deaths;
  /** Their journals cannot be read. They can only be destroyed, and until then nobody knows what is garbage. */
  readonly #unreadable = new Set<SandboxId>();
  #closing = false;

  private constructor(context: SandboxContext) {
    this.#context = context;
    this.#golden = new GoldenSnapshots(context);
    this.#entries = new SandboxEntries(context.layout);
    this.#deaths = new Deaths(context, this.#entries);
  }

  /** Takes over what an earlier host agent left. Resolves when each of its VMs is adopted or reaped. */
  static async open(context: SandboxContext, inventory: Inventory): Promise<Sandboxes> {
    const sandboxes = new Sandboxes(context);
    for (const journal of [...inventory.dead, ...inventory.paused]) sandboxes.#entries.add(journal);
    for (const id of inventory.unreadable) sandboxes.#unreadable.add(id);
    await Promise.all(
      inventory.running.map(async (journal) => {
        const entry = sandboxes.#entries.add(journal);
        const end = await adoptSandbox(context, entry, journal);
        if (end === null) sandboxes.#deaths.watch(entry);
        else await sandboxes.#deaths.reap(entry, end);
        context.log.info({ sandboxId: journal.sandboxId, end: end?.code }, end === null ? "adopted" : "not adopted");
      }),
    );
    return sandboxes;
  }

  /**
   * Creates a sandbox, or joins its creation, or returns the one there is. A caller who goes away does not end the creation.
   * @throws WrennError of the step that failed; `sandbox_busy` while one of that id is being destroyed
   */
  async create(request: CreateRequest): Promise<Listing> {
    const existing = await this.#joinCreate(request.sandboxId);
    if (existing !== null) return existing;
    const engine = await this.#engine();
    assertSizes(request);
    // Another call may have begun it meanwhile.
    if (this.#entries.find(request.sandboxId) !== undefined) return this.create(request);
    const facts = factsOfRequest(request, engine);
    return this.#make(facts, async (entry, signal) => {
      const { accessToken, templateAccessToken, envs } = request;
      const origin = await findOrigin(this.#context, this.#golden, engine, request);
      const newcomer = { facts, accessToken, frozenToken: templateAccessToken, envs };
      try {
        await startFrozenCopy(this.#context, engine, origin.manifest, newcomer, entry, signal);
      } finally {
        origin.letGo();
      }
    });
  }

  /**
   * Forgets golden snapshots that have become useless, and makes that of sandboxes that are asked for without any size, so that the first
   * of them need not wait for it.
   */
  async warm(): Promise<void> {
    const engine = await this.#engine();
    await this.#golden.dropStale(engine);
    const { vcpus, memoryMib, diskMib } = sandboxLimits;
    const template = { templateTeamId: platformTeamId, templateId: minimalTemplateId };
    const sizes = { vcpus: vcpus.default, memoryMib: memoryMib.default, diskMib: diskMib.default };
    const golden = await findOrigin(this.#context, this.#golden, engine, { ...template, ...sizes });
    golden.letGo();
    this.#context.suspectGarbage();
  }

  /**
   * Freezes a sandbox and frees what it holds. One that is paused already, or being paused, is success.
   * @throws WrennError `sandbox_not_found`, `sandbox_died`, `sandbox_busy`, or of the step that failed: it runs on then
   */
  async pause(id: SandboxId): Promise<Listing> {
    const entry = await this.#entries.join(id, "pause");
    if (entry.journal.state === "paused") return describe(entry);
    await this.#entries.operate(entry, "pause", async (signal) => {
      const { journal } = entry;
      if (journal.state !== "running") throw notRunning(journal);
      await pauseSandbox(this.#context, entry, journal, signal);
    });
    this.#context.suspectGarbage();
    return describe(entry);
  }

  /**
   * Starts a paused sandbox again. One that runs already, or is being resumed, is success.
   * @throws WrennError `sandbox_not_found`, `sandbox_died`, `sandbox_busy`, `snapshot_incompatible`, `snapshot_damaged`, or of the step
   * that failed: it stays paused then
   */
  async resume(id: SandboxId, accessToken: string): Promise<Listing> {
    const entry = await this.#entries.join(id, "resume");
    // One that is being paused will not go on running.
    if (entry.journal.state === "running" && entry.operation?.kind !== "pause") return describe(entry);
    const engine = await this.#engine();
    await this.#entries.operate(entry, "resume", async (signal) => {
      const { journal } = entry;
      if (journal.state !== "paused") throw notRunning(journal);
      await resumeSandbox(this.#context, engine, entry, journal, accessToken, signal);
    });
    this.#deaths.watch(entry);
    return describe(entry);
  }

  /** @throws WrennError `sandbox_not_found`, `recovery_unavailable`, `sandbox_busy`, or of the step that failed */
  async recover(id: SandboxId, source: RecoverySource, accessToken: string): Promise<Listing> {
    const entry = await this.#entries.join(id, "recover");
    if (entry.journal.state === "running") return describe(entry);
    const engine = await this.#engine();
    await this.#entries.operate(entry, "recover", async (signal) => {
      const { journal } = entry;
      if (journal.state !== "dead")
        throw new WrennError("recovery_unavailable", { message: "The sandbox has not died." });
      if (source === "disk") return recoverFromDisk(this.#context, engine, entry, journal, accessToken, signal);
      const paused = await rollBack(this.#context, engine, entry, journal);
      await resumeSandbox(this.#context, engine, entry, paused, accessToken, signal);
    });
    this.#deaths.watch(entry);
    return describe(entry);
  }

  /**
   * Makes copies of a running or paused sandbox: all of them, or none. The copies of a running one share the moment they were taken.
   * @param knownToken what the source's guest demands
   */
  async fork(id: SandboxId, knownToken: string, forks: readonly Fork[]): Promise<Listing[]> {
    const engine = await this.#engine();
    const { journal } = this.#entries.require(id);
    // The copies are started by the engine of today: what it could not start need not be frozen for it.
    if (journal.state === "running") assertSameMachine(journal.machine, await engine.identify(journal));
    const original = factsOf(journal);
    const source = await this.freeze(id, "fork");
    const { manifest } = source;
    const started = forks.map(async ({ sandboxId, accessToken }) => {
      const existing = await this.#joinCreate(sandboxId);
      if (existing !== null) return existing;
      const createdAt = new Date().toISOString();
      const facts: SandboxFacts = { ...original, sandboxId, createdAt, engine: engine.kind };
      const newcomer = { facts, accessToken, frozenToken: knownToken, envs: null };
      return this.#make(facts, (entry, signal) =>
        startFrozenCopy(this.#context, engine, manifest, newcomer, entry, signal),
      );
    });
    const outcomes = await Promise.allSettled(started);
    source.letGo();
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed === undefined) return Promise.all(started);
    await Promise.allSettled(forks.map(({ sandboxId }) => this.destroy(sandboxId)));
    throw failed.reason;
  }

  /** The present state of a running or paused sandbox as a generation, which stays until it is let go of. */
  async freeze(id: SandboxId, kind: "fork" | "snapshot"): Promise<HeldGeneration> {
    const entry = await this.#entries.join(id, "reap");
    let frozen: HeldGeneration | undefined;
    await this.#entries.operate(entry, kind, async (signal) => {
      const { journal } = entry;
      if (journal.state === "running") frozen = await copyRunning(this.#context, entry, journal, signal);
      else if (journal.state === "paused") frozen = await this.#context.generations.hold(journal.generation);
      else throw notRunning(journal);
    });
    if (frozen === undefined) throw new WrennError("internal");
    return frozen;
  }

  /**
   * Frees everything of a sandbox. What is being done to it is aborted; a destroy under way is joined.
   * @throws WrennError `sandbox_not_found`, or of what could not be freed: the next destroy goes on from there
   */
  async destroy(id: SandboxId): Promise<void> {
    if (this.#unreadable.has(id)) return this.#destroyUnreadable(id);
    const entry = this.#entries.require(id);
    while (entry.operation !== null) {
      const { kind, done, abort } = entry.operation;
      if (kind === "destroy") {
        await done;
        return;
      }
      abort.abort(
        new WrennError("sandbox_state_conflict", { message: "The sandbox was destroyed in the middle of this." }),
      );
      await settled(done);
    }
    if (this.#entries.find(id) !== entry) return;
    await this.#entries.operate(entry, "destroy", async () => {
      entry.gone.abort();
      await destroySandbox(this.#context, entry);
      this.#entries.remove(entry);
    });
    this.#context.suspectGarbage();
    this.#context.log.info({ sandboxId: id }, "destroyed");
  }

  /** @throws WrennError `sandbox_not_found` */
  get(id: SandboxId): Listing {
    return describe(this.#entries.require(id));
  }

  list(): Listing[] {
    return this.#entries.all().map((entry) => describe(entry));
  }

  /**
   * What the guest has printed on its console from an offset on, also of one that is being created or has died.
   * @throws WrennError `sandbox_not_found`
   */
  async readConsole(id: SandboxId, offset: number): Promise<ConsolePart> {
    const { holdings } = this.#entries.require(id);
    await holdings.vm?.drainConsole();
    return new ConsoleLog(holdings.files.consoleLog).read(offset, consoleLimits.answerBytes);
  }

  /** @throws WrennError `sandbox_not_found`, or why it cannot be reached */
  reach(id: SandboxId): Reach {
    const { journal, holdings, gone } = this.#entries.require(id);
    if (journal.state !== "running" || holdings.slot === null || gone.signal.aborted) throw notRunning(journal);
    return { address: holdings.slot.address, gone: gone.signal };
  }

  /** Goes on with what an earlier host agent may not have come to: states that are spread over too many layers. */
  foldPaused(): void {
    for (const { journal } of this.#entries.all()) {
      if (journal.state === "paused") this.#context.folds.add(journal.generation);
    }
  }

  /** What all of them keep from being garbage. Null while that is not known. */
  roots(): JournalRoots[] | null {
    if (this.#unreadable.size > 0) return null;
    return this.#entries.all().map(({ journal }) => journalRoots(journal));
  }

  /** Lets operations finish for a while, aborts the rest, and lets go of the VMs, which keep running. */
  async close(graceMs: number): Promise<void> {
    this.#closing = true;
    const operations = this.#entries.all().flatMap(({ operation }) => operation ?? []);
    await Promise.race([
      Promise.all(operations.map(({ done }) => settled(done))),
      delay(graceMs, undefined, { ref: false }),
    ]);
    const reason = new WrennError("shutting_down");
    for (const { kind, abort } of operations) if (kind !== "destroy" && kind !== "reap") abort.abort(reason);
    await Promise.all([...operations.map(({ done }) => settled(done)), this.#golden.close(reason)]);
    await Promise.all(this.#entries.all().map(async ({ holdings }) => holdings.vm?.detach()));
    for (const { gone } of this.#entries.all()) gone.abort();
  }

  /** Its engine has been ended at the start of this host agent. */
  async #destroyUnreadable(id: SandboxId): Promise<void> {
    await removeDirectory(this.#context, id);
    this.#unreadable.delete(id);
    this.#context.suspectGarbage();
  }

  /** Makes a new entry by an operation; nothing of it stays when that fails, unless something resists. */
  async #make(
    facts: SandboxFacts,
    start: (entry: SandboxEntry, signal: AbortSignal) => Promise<void>,
  ): Promise<Listing> {
    const { sandboxId } = facts;
    const entry = this.#entries.add({
      ...facts,
      state: "creating",
      slot: null,
      process: null,
      origin: null,
      steps: [],
    });
    await this.#entries.operate(entry, "create", async (signal) => {
      try {
        await start(entry, signal);
        this.#deaths.watch(entry);
      } catch (error) {
        this.#context.log.warn({ sandboxId, err: error }, "creation failed");
        // Kept only when something resisted its undo: a destroy then tries again.
        if (entry.journal.state === "creating") this.#entries.remove(entry);
        throw error;
      }
    });
    const steps = entry.journal.steps;
    this.#context.log.info({ sandboxId, engine: facts.engine, steps }, "created");
    return describe(entry);
  }

  /** The sandbox of that id, if there is or will be one. */
  async #joinCreate(id: SandboxId): Promise<Listing | null> {
    const existing = this.#entries.find(id);
    if (existing === undefined) return null;
    if (existing.operation?.kind === "destroy") {
      throw new WrennError("sandbox_busy", { message: "The sandbox is being destroyed." });
    }
    if (existing.operation?.kind === "create") await existing.operation.done;
    if (existing.journal.state !== "destroying") return describe(existing);
    throw new WrennError("sandbox_busy", { message: "The sandbox is half destroyed: destroy it again." });
  }

  async #engine(): Promise<Engine> {
    if (this.#closing) throw new WrennError("shutting_down");
    return this.#context.engines.current();
  }
}
