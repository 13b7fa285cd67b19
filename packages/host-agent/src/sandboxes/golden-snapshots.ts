/**
 * The frozen states that sandboxes of base templates are started from. The first create of a shape boots a guest, lets it touch what every
 * sandbox needs first, and freezes it; all others of that shape are restored from it.
 */
import { type GenerationId, newId, type TeamId, type TemplateId } from "@wrenn/contract";
import { runSteps, type Step } from "@wrenn/system";
import { type BootFiles, findBootFiles, isRootfsInUse, type TemplateFiles } from "../disks/boot-files.ts";
import type { Engine } from "../engines/engine.ts";
import type { HeldGeneration } from "../memory/generations.ts";
import type { MemoryImage } from "../memory/pager.ts";
import { goldenKey, type GoldenShape } from "../memory/golden-record.ts";
import { bringUp, type Progress } from "./bring-up.ts";
import { captureMemory, captureSubject, contentOf } from "./capture.ts";
import { noHoldings, required, type SandboxContext } from "./context.ts";
import { freeHoldings, removeDirectory } from "./free.ts";
import { initialiseGolden, runInGuest, syncGuest } from "./guest-client.ts";
import type { RunningJournal, SandboxFacts } from "./journal.ts";
import { diskOver, overlayOf } from "./own-disk.ts";
import { StepClock } from "./step-clock.ts";

/** What decides which golden snapshot fits a create. */
export interface Shape {
  readonly template: { readonly teamId: TeamId; readonly templateId: TemplateId };
  readonly files: TemplateFiles;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
}

/**
 * What most sandboxes begin with. Run once before the freeze, so that its pages are in the frozen memory instead of having to be read from
 * the disk by every sandbox. What a template does not have is skipped.
 */
const warmUp = [
  // For some seconds after its boot a kernel counts time in steps of 4 ms, until it trusts a better clock: all sandboxes would keep that.
  "for _ in $(seq 10); do grep -q jiffies /sys/devices/system/clocksource/clocksource0/current_clocksource || break; sleep 0.1; done",
  "true; cat /dev/null; ls / >/dev/null",
  "command -v python3 >/dev/null && python3 -c 'import json, os, sys'",
];
const warmUpMs = 20_000;

export class GoldenSnapshots {
  readonly #context: SandboxContext;
  readonly #closing = new AbortController();
  /** Those in the making, by key: creates of the same shape wait together. */
  readonly #making = new Map<string, Promise<GenerationId>>();

  constructor(context: SandboxContext) {
    this.#context = context;
  }

  /** Resolves with the frozen state to restore; makes it first where there is none. The caller going away does not end that. */
  async ensure(engine: Engine, shape: Shape): Promise<HeldGeneration> {
    const boot = await findBootFiles(this.#context.layout);
    const machine = await engine.identify(shape);
    const { vcpus, memoryMib, diskMib, files } = shape;
    const { kernel, initramfs } = boot;
    const diskFormat = this.#context.disks.current.format;
    const sizes = { vcpus, memoryMib, diskMib };
    const frozen: GoldenShape = { rootfs: files.rootfs, kernel, initramfs, ...sizes, machine, diskFormat };
    const known = await this.#find(frozen);
    if (known !== null) return known;
    const key = goldenKey(frozen);
    const making = this.#making.get(key) ?? this.#make(frozen, engine, boot, shape);
    this.#making.set(key, making);
    try {
      return await this.#context.generations.hold(await making);
    } finally {
      this.#making.delete(key);
    }
  }

  /** Forgets those that no create will ask for any more, because kernel, guest agent, engine or root filesystem have been replaced. */
  async dropStale(engine: Engine): Promise<void> {
    const { golden, layout, disks, log } = this.#context;
    const { kernel, initramfs } = await findBootFiles(layout);
    const dropped = await golden.dropStale(async (shape) => {
      if (shape.kernel !== kernel || shape.initramfs !== initramfs) return false;
      if (shape.diskFormat !== disks.current.format) return false;
      const machine = await engine.identify(shape);
      return machine.version === shape.machine.version && (await isRootfsInUse(layout, shape.rootfs));
    });
    if (dropped.length > 0) log.info({ count: dropped.length }, "forgot golden snapshots of what has been replaced");
  }

  /** Ends what is in the making, and waits until nothing of it is left. */
  async close(reason: Error): Promise<void> {
    this.#closing.abort(reason);
    await Promise.allSettled(this.#making.values());
  }

  /** A golden snapshot is a cache: one that is damaged is forgotten, and made anew. */
  async #find(shape: GoldenShape): Promise<HeldGeneration | null> {
    const { golden, generations, log } = this.#context;
    const record = await golden.find(shape);
    if (record === null) return null;
    try {
      const held = await generations.hold(record.generation);
      await golden.touch(record.key);
      return held;
    } catch (error) {
      log.error({ key: record.key, err: error }, "a golden snapshot cannot be used, and is made anew");
      await golden.forget(record.key);
      return null;
    }
  }

  async #make(frozen: GoldenShape, engine: Engine, boot: BootFiles, shape: Shape): Promise<GenerationId> {
    const context = this.#context;
    const { vcpus, memoryMib, diskMib, template, files } = shape;
    const facts: SandboxFacts = {
      version: 2,
      sandboxId: newId("sandbox"),
      teamId: template.teamId,
      template,
      vcpus,
      memoryMib,
      diskMib,
      engine: engine.kind,
      createdAt: new Date().toISOString(),
    };
    const { sandboxId } = facts;
    const holdings = noHoldings(context.layout.sandbox(sandboxId));
    const progress: Progress = {
      holdings,
      journal: { ...facts, state: "creating", slot: null, process: null, origin: null, steps: [] },
    };
    const started = performance.now();
    let id: GenerationId | null = null;
    // The journal says `creating` until the end: should this process die, the next one removes the half-made guest.
    await bringUp(
      context,
      engine,
      {
        operation: "golden",
        facts,
        source: { from: "boot", boot },
        disk: diskOver({ format: frozen.diskFormat, layers: [], rootfs: files.rootfs }),
        keepsOverlay: false,
        underWay: (held) => ({ ...facts, ...held, state: "creating", origin: null }),
        fallback: null,
        lastPause: null,
        guest: null,
      },
      progress,
      this.#closing.signal,
      async (running) => {
        id = await this.#freeze(frozen, progress, running);
      },
    );
    await freeHoldings(context, sandboxId, holdings);
    await removeDirectory(context, sandboxId);
    const milliseconds = Math.round(performance.now() - started);
    context.log.info({ vcpus, memoryMib, diskMib, milliseconds }, "made a golden snapshot");
    return required<GenerationId>(id, "golden snapshot");
  }

  async #freeze(shape: GoldenShape, { holdings }: Progress, running: RunningJournal): Promise<GenerationId> {
    const { generations, golden, log } = this.#context;
    const disks = this.#context.disks.of(shape.diskFormat);
    const vm = required(holdings.vm, "VM");
    const { address } = required(holdings.slot, "slot");
    const subject = captureSubject(running, holdings);
    const draft = await generations.begin();
    const overlay = { sandboxId: running.sandboxId, file: overlayOf(holdings.files, running.disk) };
    const chain = { layers: [draft.diskLayer], rootfs: running.disk.rootfs };
    const clock = new StepClock(this.#context, "golden", this.#closing.signal);
    let memory: MemoryImage | null = null;
    const steps: Step[] = [
      {
        name: "name the guest",
        run: () => initialiseGolden(address, this.#context.dns, this.#closing.signal),
      },
      { name: "warm up", run: () => this.#warmUp(address) },
      { name: "sync the guest", run: () => syncGuest(address, log) },
      { name: "freeze", run: () => vm.freeze() },
      {
        name: "capture the memory",
        run: async () => {
          memory = await captureMemory(this.#context, subject, draft, this.#closing.signal);
        },
      },
      { name: "keep the disk", run: () => disks.keepAsLayer(overlay, draft.diskLayer) },
      { name: "end the engine", run: () => vm.kill() },
      { name: "seal the disk's layer", run: () => disks.sealTop(chain) },
      {
        name: "publish",
        run: async () => {
          const content = contentOf(subject, draft, required<MemoryImage>(memory, "captured memory"));
          await draft.publish({ ...content, sandboxId: null });
        },
      },
      {
        name: "record",
        run: async () => {
          await golden.record(shape, draft.id);
        },
      },
    ];
    try {
      await runSteps(steps.map((step) => clock.step(step)));
      return draft.id;
    } catch (error) {
      // Its record may be there although writing it failed at its last sync.
      await golden.forget(goldenKey(shape));
      await draft.discard();
      throw error;
    } finally {
      draft.release();
    }
  }

  async #warmUp(address: string): Promise<void> {
    const { log } = this.#context;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(warmUpMs)]);
    for (const script of warmUp) {
      try {
        await runInGuest(address, ["/bin/sh", "-c", script], signal);
      } catch (error) {
        this.#closing.signal.throwIfAborted();
        log.warn({ err: error, script }, "a golden snapshot is colder than it could be");
      }
    }
  }
}
