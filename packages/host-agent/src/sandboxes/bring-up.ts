/**
 * Brings up the VM of a sandbox, from a kernel or from a frozen state: room, slot, journal, disk, cgroup, memory, engine, guest. Each
 * step has its undo beside it. Creating, resuming, forking and recovering are all this, with other journals before and after.
 */
import { chmod, chown, mkdir } from "node:fs/promises";
import { engineMemoryOverheadMib, type GenerationId } from "@wrenn/contract";
import { inParallel, runSteps, type Step, syncDirectory } from "@wrenn/system";
import type { BootFiles } from "../disks/boot-files.ts";
import type { Disks, SandboxDisk } from "../disks/disks.ts";
import { removeOverlay } from "../disks/overlay-files.ts";
import { asDiskError } from "../memory/sizes.ts";
import type { CgroupLimits, CgroupMembership } from "../engines/cgroups.ts";
import type { Engine, MachineIdentity, VirtualMachine, VmDisk, VmStart } from "../engines/engine.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import type { Slot } from "../network/slot-pool.ts";
import { awaitBoot, bootWithRetry, whileAlive } from "./boot.ts";
import { type Holdings, record, required, type SandboxContext } from "./context.ts";
import {
  detachDisk,
  endEngine,
  endPager,
  releaseMemory,
  releaseSlot,
  removeDirectory,
  removeOverlays,
} from "./free.ts";
import { type GuestConfiguration, initialiseGuest } from "./guest-client.ts";
import type { Disk, Journal, RunningJournal, SandboxFacts } from "./journal.ts";
import { checkMemory, openMemory, type OpenMemory, whileServed } from "./open-memory.ts";
import { asSandboxDisk } from "./own-disk.ts";
import { StepClock } from "./step-clock.ts";

/** What a journal names while a VM is brought up. */
export type Held = Pick<Extract<Journal, { state: "creating" }>, "slot" | "process" | "steps">;

export type VmSource =
  | { readonly from: "boot"; readonly boot: BootFiles }
  | { readonly from: "frozen"; readonly manifest: GenerationManifest };

export interface BringUpPlan {
  /** What this is part of. */
  readonly operation: "create" | "golden" | "resume" | "recover";
  readonly facts: SandboxFacts;
  readonly source: VmSource;
  readonly disk: Disk;
  /** The overlay is there already, and stays whatever happens. */
  readonly keepsOverlay: boolean;
  /** The journal for as long as this is under way. */
  readonly underWay: (held: Held) => Journal;
  /** The journal that a failure goes back to. Null: nothing of the sandbox was there before, and nothing stays. */
  readonly fallback: Journal | null;
  readonly lastPause: GenerationId | null;
  /** Null leaves the guest without identity: a golden snapshot is nobody's. */
  readonly guest: GuestConfiguration | null;
}

/** Where an operation tells how far it has got. */
export interface Progress {
  readonly holdings: Holdings;
  /** The journal as last written. */
  journal: Journal;
}

/** Threads of QEMU besides one per vCPU: its main loop, and up to 64 workers for disk requests. */
const engineThreads = 96;

/**
 * Resolves once the guest has taken its configuration and `commit` has written down what then runs. When a step fails, or the signal is
 * aborted, everything taken so far is given back first; what resists is kept in the journal for a later destroy.
 */
export async function bringUp(
  context: SandboxContext,
  engine: Engine,
  plan: BringUpPlan,
  progress: Progress,
  signal: AbortSignal,
  commit: (running: RunningJournal) => Promise<void>,
): Promise<void> {
  const { holdings } = progress;
  context.disks.assertUsable(plan.disk.format, engine);
  void context.cgroups.expectMember();
  const machine = await engine.identify(plan.facts);
  if (plan.source.from === "frozen") await context.generations.assertRestorable(plan.source.manifest, machine);
  const ascent = new Ascent(context, engine, plan, progress, signal);
  try {
    await runSteps(ascent.steps(() => commit(ascent.running(machine))));
  } catch (error) {
    throw asDiskError(error);
  } finally {
    holdings.memory?.settle();
  }
}

class Ascent {
  readonly #context: SandboxContext;
  readonly #engine: Engine;
  readonly #plan: BringUpPlan;
  readonly #progress: Progress;
  readonly #signal: AbortSignal;
  readonly #clock: StepClock;
  #cgroup: CgroupMembership = { procsFiles: [] };
  #memory: OpenMemory | null = null;
  #disk: VmDisk | null = null;

  constructor(context: SandboxContext, engine: Engine, plan: BringUpPlan, progress: Progress, signal: AbortSignal) {
    this.#context = context;
    this.#engine = engine;
    this.#plan = plan;
    this.#progress = progress;
    this.#signal = signal;
    this.#clock = new StepClock(context, plan.operation, signal);
  }

  steps(commit: () => Promise<void>): Step[] {
    const { slots, cgroups, admission } = this.#context;
    const { facts, source } = this.#plan;
    const { holdings } = this.#progress;
    const disk: Step = { name: "make the disk", run: () => this.#makeDisk(), undo: () => this.#removeDisk() };
    const cgroup: Step = {
      name: "make the cgroup",
      run: async () => {
        this.#cgroup = await cgroups.create(facts.sandboxId, cgroupLimits(facts));
      },
      undo: () => cgroups.remove(facts.sandboxId),
    };
    const attach: Step = {
      name: "attach the disk",
      run: () => this.#attachDisk(),
      undo: () => detachDisk(facts.sandboxId, holdings),
    };
    const memory: Step = { name: "open the memory", run: () => this.#openMemory(), undo: () => endPager(holdings) };
    const check: Step = {
      name: "check the memory",
      run: () => checkMemory(this.#context, { manifest: this.#manifest(), mapsLayers: this.#engine.mapsLayers }),
    };
    return [
      this.#clock.step({
        name: "admit",
        run: async () => {
          holdings.memory = await admission.admit(facts.memoryMib);
        },
        undo: async () => releaseMemory(holdings),
      }),
      // Needs no journal: the pool itself removes slots that no journal names.
      this.#clock.step({
        name: "take a slot",
        run: async () => {
          holdings.slot = await slots.acquire(this.#signal);
        },
        undo: () => releaseSlot(this.#context, holdings),
      }),
      this.#clock.step({
        name: "make the directory",
        run: () => this.#openJournal(),
        undo: () => this.#closeJournal(),
      }),
      inParallel("prepare", [this.#clock.step(disk), this.#clock.step(cgroup), this.#clock.step(check)]),
      inParallel("open", [this.#clock.step(attach), this.#clock.step(memory)]),
      this.#clock.step({
        name: source.from === "boot" ? "boot" : "restore",
        run: () =>
          source.from === "boot"
            ? this.#boot(source.boot)
            : whileServed(holdings, this.#signal, () => this.#restore(source.manifest)),
        undo: () => endEngine(holdings),
      }),
      this.#clock.step({
        name: "configure the guest",
        run: () => whileServed(holdings, this.#signal, () => this.#configureGuest()),
      }),
      this.#clock.step({ name: "commit", run: commit }),
    ];
  }

  /** What the journal is to say once all steps are done. */
  running(machine: MachineIdentity): RunningJournal {
    const { facts, disk, lastPause } = this.#plan;
    return {
      ...facts,
      state: "running",
      slot: this.#slot().index,
      process: this.#vm().identity,
      machine,
      engineReason: this.#engine.reason,
      memory: this.#openedMemory().source,
      disk,
      lastPause,
      steps: this.#clock.timings,
    };
  }

  /**
   * Until there is an engine, nothing needs to be written down: the next host agent removes a directory without a journal, and cgroups and
   * slots that no journal names; and what was there before is as it was.
   */
  async #openJournal(): Promise<void> {
    const { directory } = this.#progress.holdings.files;
    if (this.#plan.fallback === null) await mkdir(directory, { mode: 0o700 });
    await openToEngine(directory, this.#slot().uid);
    this.#progress.journal = this.#underWay();
  }

  async #closeJournal(): Promise<void> {
    const { facts, fallback } = this.#plan;
    const { slot, process, disks } = this.#progress.holdings;
    if (process !== null || disks !== null) {
      // It resists being killed, or being detached. Of a sandbox that was there before, nothing is given up for that: the next start goes on.
      if (fallback === null)
        await record(this.#context, this.#progress, {
          ...facts,
          state: "destroying",
          slot: slot?.index ?? null,
          process,
          steps: [],
        });
      else await this.#recordUnderWay();
    } else if (fallback === null) {
      await removeDirectory(this.#context, facts.sandboxId);
    } else {
      await record(this.#context, this.#progress, fallback);
    }
  }

  async #makeDisk(): Promise<void> {
    if (this.#plan.keepsOverlay) return;
    const own = this.#ownDisk();
    await this.#disks().sealTop(own.below);
    await removeOverlay(own.file);
    await this.#disks().createOverlay(own);
  }

  async #attachDisk(): Promise<void> {
    // Before it is: cut short, it must be given back as well.
    this.#progress.holdings.disks = this.#disks();
    this.#disk = await this.#disks().attach(this.#ownDisk());
  }

  async #removeDisk(): Promise<void> {
    if (!this.#plan.keepsOverlay) await removeOverlays(this.#progress.holdings.files);
  }

  async #openMemory(): Promise<void> {
    const { facts } = this.#plan;
    const { mapsLayers } = this.#engine;
    const request = { facts, mapsLayers, manifest: this.#manifest(), uid: this.#slot().uid, cgroup: this.#cgroup };
    this.#memory = await openMemory(this.#context, request, this.#progress.holdings, this.#signal);
  }

  async #boot(boot: BootFiles): Promise<void> {
    await bootWithRetry(this.#signal, async (attempt) => {
      if (attempt > 1) {
        await endEngine(this.#progress.holdings);
        await detachDisk(this.#plan.facts.sandboxId, this.#progress.holdings);
        await this.#makeDisk();
        await this.#attachDisk();
        await this.#openMemory();
      }
      await this.#startEngine({ from: "boot", kernel: boot.kernel, initramfs: boot.initramfs });
      await awaitBoot(this.#vm(), this.#slot().address, this.#signal);
    });
  }

  async #restore(manifest: GenerationManifest): Promise<void> {
    await this.#startEngine({ from: "frozen", deviceState: this.#context.layout.generation(manifest.id).deviceState });
  }

  async #startEngine(start: VmStart): Promise<void> {
    const { facts } = this.#plan;
    const { holdings } = this.#progress;
    holdings.vm = await this.#engine.start(
      {
        sandboxId: facts.sandboxId,
        vcpus: facts.vcpus,
        memoryMib: facts.memoryMib,
        start,
        memory: this.#openedMemory().guest,
        disk: required(this.#disk, "attached disk"),
        files: holdings.files,
        network: this.#slot(),
        uid: this.#slot().uid,
        cgroup: this.#cgroup,
      },
      async (process) => {
        holdings.process = process;
        await Promise.all([this.#recordUnderWay(), syncDirectory(this.#context.layout.sandboxes)]);
      },
      this.#signal,
    );
  }

  async #configureGuest(): Promise<void> {
    const { guest } = this.#plan;
    if (guest === null) return;
    await whileAlive(this.#vm(), this.#signal, (alive) => initialiseGuest(this.#slot().address, guest, alive));
  }

  async #recordUnderWay(): Promise<void> {
    await record(this.#context, this.#progress, this.#underWay());
  }

  #underWay(): Journal {
    const { process } = this.#progress.holdings;
    return this.#plan.underWay({ slot: this.#slot().index, process, steps: [] });
  }

  #disks(): Disks {
    return this.#context.disks.of(this.#plan.disk.format);
  }

  #ownDisk(): SandboxDisk {
    const { facts, disk } = this.#plan;
    return asSandboxDisk(facts, this.#progress.holdings.files, disk, this.#slot().uid);
  }

  #manifest(): GenerationManifest | null {
    const { source } = this.#plan;
    return source.from === "frozen" ? source.manifest : null;
  }

  #slot(): Slot {
    return required(this.#progress.holdings.slot, "slot");
  }

  #vm(): VirtualMachine {
    return required(this.#progress.holdings.vm, "VM");
  }

  #openedMemory(): OpenMemory {
    return required(this.#memory, "memory");
  }
}

function cgroupLimits(facts: SandboxFacts): CgroupLimits {
  return {
    memoryMib: facts.memoryMib + engineMemoryOverheadMib,
    // One more than the guest's: QEMU's own thread moves its network and disk traffic.
    cpus: facts.vcpus + 1,
    pids: facts.vcpus + engineThreads,
  };
}

/**
 * Lets the engine make its control socket in the sandbox's directory, by group; sticky, so that it cannot replace or remove
 * the journal and logs, which are root's.
 */
async function openToEngine(directory: string, uid: number): Promise<void> {
  await chown(directory, 0, uid);
  await chmod(directory, 0o1770);
}
