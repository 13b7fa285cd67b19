/** The sandboxes of this host, and the operations on them: one at a time for each. */
import { setTimeout as delay } from "node:timers/promises";
import { asWrennError, consoleLimits, type RecoverySource, type SandboxId, WrennError } from "@wrenn/contract";
import { KeyedLock } from "@wrenn/system";
import { findTemplate } from "../disks/boot-files.ts";
import { ConsoleLog, type ConsolePart } from "../engines/console-log.ts";
import type { Engine, VmEnd } from "../engines/engine.ts";
import { adoptSandbox, type Inventory } from "./adopt.ts";
import { noHoldings, type OperationKind, reachable, type SandboxContext, type SandboxEntry } from "./context.ts";
import { copyRunning, type HeldGeneration } from "./copy.ts";
import { assertSameSizes, assertSizes, type CreateRequest, factsOfRequest, startFrozenCopy } from "./create.ts";
import { destroySandbox } from "./destroy.ts";
import { GoldenSnapshots } from "./golden-snapshots.ts";
import { factsOf, type Journal, type SandboxFacts } from "./journal.ts";
import { journalRoots } from "./journal-roots.ts";
import { pauseSandbox } from "./pause.ts";
import { reapSandbox } from "./reap.ts";
import { recoverFromDisk, rollBack } from "./recover.ts";
import { resumeSandbox } from "./resume.ts";
import { notRunning } from "./running.ts";
import { watchVm } from "./watch.ts";

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
  readonly #entries = new Map<SandboxId, SandboxEntry>();
  readonly #lock = new KeyedLock();
  #closing = false;

  private constructor(context: SandboxContext) {
    this.#context = context;
    this.#golden = new GoldenSnapshots(context);
  }

  /** Takes over what an earlier host agent left. Resolves when each of its VMs is adopted or reaped. */
  static async open(context: SandboxContext, inventory: Inventory): Promise<Sandboxes> {
    const sandboxes = new Sandboxes(context);
    for (const journal of [...inventory.dead, ...inventory.paused]) sandboxes.#add(journal);
    await Promise.all(
      inventory.running.map(async (journal) => {
        const entry = sandboxes.#add(journal);
        const end = await adoptSandbox(context, entry, journal);
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
    const existing = await this.#joinCreate(request.sandboxId);
    if (existing !== null) return existing;
    const engine = await this.#engine();
    assertSizes(request);
    // Another call may have begun it meanwhile.
    if (this.#entries.has(request.sandboxId)) return this.create(request);
    const facts = factsOfRequest(request, engine);
    return this.#make(facts, async (entry, signal) => {
      const { accessToken, templateAccessToken, envs } = request;
      const origin = await this.#originOf(request, engine);
      const newcomer = { facts, accessToken, frozenToken: templateAccessToken, envs };
      try {
        await startFrozenCopy(this.#context, engine, origin.manifest, newcomer, entry, signal);
      } finally {
        origin.letGo();
      }
    });
  }

  /**
   * Freezes a sandbox and frees what it holds. One that is paused already, or being paused, is success.
   * @throws WrennError `sandbox_not_found`, `sandbox_died`, `sandbox_busy`, or of the step that failed: it runs on then
   */
  async pause(id: SandboxId): Promise<Journal> {
    const entry = await this.#join(id, "pause");
    if (entry.journal.state === "paused") return entry.journal;
    await this.#operate(entry, "pause", async (signal) => {
      const { journal } = entry;
      if (journal.state !== "running") throw notRunning(journal);
      await pauseSandbox(this.#context, entry, journal, signal);
    });
    this.#collectGarbage();
    return entry.journal;
  }

  /**
   * Starts a paused sandbox again. One that runs already, or is being resumed, is success.
   * @throws WrennError `sandbox_not_found`, `sandbox_died`, `sandbox_busy`, `snapshot_incompatible`, `snapshot_damaged`, or of the step
   * that failed: it stays paused then
   */
  async resume(id: SandboxId, accessToken: string): Promise<Journal> {
    const entry = await this.#join(id, "resume");
    if (entry.journal.state === "running") return entry.journal;
    const engine = await this.#engine();
    await this.#operate(entry, "resume", async (signal) => {
      const { journal } = entry;
      if (journal.state !== "paused") throw notRunning(journal);
      await resumeSandbox(this.#context, engine, entry, journal, accessToken, signal);
    });
    this.#watch(entry);
    return entry.journal;
  }

  /** @throws WrennError `sandbox_not_found`, `recovery_unavailable`, `sandbox_busy`, or of the step that failed */
  async recover(id: SandboxId, source: RecoverySource, accessToken: string): Promise<Journal> {
    const entry = await this.#join(id, "recover");
    if (entry.journal.state === "running") return entry.journal;
    const engine = await this.#engine();
    await this.#operate(entry, "recover", async (signal) => {
      const { journal } = entry;
      if (journal.state !== "dead") throw new WrennError("recovery_unavailable", { message: "The sandbox has not died." });
      if (source === "disk") return recoverFromDisk(this.#context, engine, entry, journal, accessToken, signal);
      const paused = await rollBack(this.#context, entry, journal);
      await resumeSandbox(this.#context, engine, entry, paused, accessToken, signal);
    });
    this.#watch(entry);
    return entry.journal;
  }

  /**
   * Makes copies of a running or paused sandbox: all of them, or none. The copies of a running one share the moment they were taken.
   * @param knownToken what the source's guest demands
   */
  async fork(id: SandboxId, knownToken: string, forks: readonly Fork[]): Promise<Journal[]> {
    const engine = await this.#engine();
    const source = await this.freeze(id, "fork");
    const { manifest } = source;
    const started = forks.map(async ({ sandboxId, accessToken }) => {
      const existing = await this.#joinCreate(sandboxId);
      if (existing !== null) return existing;
      const createdAt = new Date().toISOString();
      const facts: SandboxFacts = { ...factsOf(this.#require(id).journal), sandboxId, createdAt, engine: engine.kind };
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
    const entry = this.#require(id);
    let frozen: HeldGeneration | undefined;
    await this.#operate(entry, kind, async (signal) => {
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
    const entry = this.#require(id);
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
    if (!this.#entries.has(id)) return;
    await this.#operate(entry, "destroy", async () => {
      entry.gone.abort();
      await destroySandbox(this.#context, entry);
      this.#entries.delete(id);
    });
    this.#collectGarbage();
    this.#context.log.info({ sandboxId: id }, "destroyed");
  }
}
