/** For tests: all that a creation has ready when it starts an engine, what a pause keeps of one, and both cleared away. */
import { chmod, chown, copyFile, mkdir, mkdtemp, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { deadlines, guestAgentPort, minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import {
  endProcess,
  type Layout,
  layoutFromEnvironment,
  pollUntil,
  type ProcessIdentity,
  type SandboxLayout,
  waitForExit,
  wrennLayout,
} from "@wrenn/system";
import { pino } from "pino";
import { findBootFiles, findTemplate, type TemplateFiles } from "../../disks/boot-files.ts";
import type { DiskChain, Disks, SandboxDisk } from "../../disks/disks.ts";
import { chooseDisks, type DiskChoice } from "../../disks/choice.ts";
import { HostDisks } from "../../disks/host-disks.ts";
import { disksUnderTest } from "../../disks/testing/disks-under-test.ts";
import { type Slot, SlotPool } from "../../network/slot-pool.ts";
import { PagerProgram } from "../../memory/pager.ts";
import { makeBlankMemory } from "../blank-memory.ts";
import { Cgroups } from "../cgroups.ts";
import type { Engine, GuestMemory, VirtualMachine, VmSpec, VmStart } from "../engine.ts";
import type { EngineChoice } from "../choose.ts";
import { Engines } from "../engines.ts";
import { detectFirecracker } from "../firecracker/detect.ts";
import { FirecrackerEngine } from "../firecracker/engine.ts";
import { firecrackerPrograms } from "./contract-engines.ts";

/** The least that boots quickly; what the tests hold in a guest's memory is small. */
const memoryMib = 256;

export interface PreparedVm {
  readonly ownDisk: SandboxDisk;
  /** Of a guest that boots. */
  readonly spec: VmSpec & {
    readonly start: Extract<VmStart, { from: "boot" }>;
    readonly memory: Extract<GuestMemory, { backend: "file" }>;
  };
  readonly slot: Slot;
  readonly files: SandboxLayout;
}

/** What a pause keeps. */
export interface FrozenVm {
  readonly deviceState: string;
  /** Its memory as one file, and the header that says so. */
  readonly memory: string;
  readonly header: string;
  readonly disk: DiskChain;
}

export class VmBench {
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  readonly disks: Disks;
  readonly template: TemplateFiles;
  readonly #slots: SlotPool;
  readonly #prepared: PreparedVm[] = [];
  readonly #machines: VirtualMachine[] = [];
  readonly #pagers: ProcessIdentity[] = [];
  readonly #pager: PagerProgram;

  private constructor(layout: Layout, cgroups: Cgroups, disks: Disks, slots: SlotPool, template: TemplateFiles) {
    this.layout = layout;
    this.disks = disks;
    this.#pager = new PagerProgram(layout);
    this.cgroups = cgroups;
    this.#slots = slots;
    this.template = template;
  }

  /** @param tag tells its cgroups and slots from those of others on this machine, as does `cidr` its addresses */
  static async open(tag: string, cidr: string, disksChoice: DiskChoice = disksUnderTest): Promise<VmBench> {
    const installed = layoutFromEnvironment();
    const layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-")));
    await chmod(layout.root, 0o711);
    for (const directory of [layout.sandboxes, layout.layers]) await mkdir(directory, { mode: 0o711 });
    await mkdir(layout.run);
    for (const borrowed of ["boot", "bin", "images"] as const) await symlink(installed[borrowed], layout[borrowed]);
    const disks = new HostDisks(layout, await chooseDisks(disksChoice)).current;
    const cgroups = await Cgroups.open(tag, pino({ level: "silent" }));
    const slots = await SlotPool.open({ cidr, instance: tag, poolSize: 0 }, []);
    const template = await findTemplate(layout, platformTeamId, minimalTemplateId);
    if (template.type !== "base") throw new Error("the built-in template is a snapshot");
    return new VmBench(layout, cgroups, disks, slots, template);
  }

  async engine(choice: EngineChoice, layout = this.layout): Promise<Engine> {
    if (choice === "firecracker") {
      const program = await detectFirecracker(firecrackerPrograms());
      return new FirecrackerEngine({ program, reason: "It is what this test is about." });
    }
    const bootFiles = () => findBootFiles(this.layout);
    const { firecracker, jailer } = firecrackerPrograms();
    const named = firecracker === "" || jailer === "" ? {} : { firecracker, jailer };
    const disks = { current: this.disks, reason: "These are the disks that this test has." };
    return new Engines({ layout, cgroups: this.cgroups, choice, programs: named, disks, bootFiles }).current();
  }

  /** A slot, a directory, a disk and a cgroup. */
  async prepare(below: DiskChain = { layers: [], rootfs: this.template.rootfs }): Promise<PreparedVm> {
    const sandboxId = newId("sandbox");
    const slot = await this.#slots.acquire();
    const { uid } = slot;
    const files = this.layout.sandbox(sandboxId);
    await mkdir(files.directory);
    await chown(files.directory, 0, uid);
    await chmod(files.directory, 0o1770);
    const file = files.overlay(this.disks.format);
    const ownDisk = { sandboxId, file, below, sizeMib: this.template.diskMib, uid };
    await this.disks.createOverlay(ownDisk);
    await makeBlankMemory(files.blankMemory, memoryMib);
    const { kernel, initramfs } = await findBootFiles(this.layout);
    const spec = {
      sandboxId,
      vcpus: 1,
      memoryMib,
      start: { from: "boot", kernel, initramfs } as const,
      memory: { backend: "file", path: files.blankMemory } as const,
      disk: await this.disks.attach(ownDisk),
      files,
      network: slot,
      uid,
      cgroup: await this.cgroups.create(sandboxId, { memoryMib: 640, cpus: 2, pids: 100 }),
    };
    const prepared = { spec, ownDisk, slot, files };
    this.#prepared.push(prepared);
    return prepared;
  }

  async start(engine: Engine, spec: VmSpec, spawned: ProcessIdentity[] = []): Promise<VirtualMachine> {
    const noteSpawn = async (identity: ProcessIdentity): Promise<void> => {
      spawned.push(identity);
    };
    const vm = await engine.start(spec, noteSpawn, new AbortController().signal);
    this.#machines.push(vm);
    return vm;
  }

  /** Has `clear` end this VM too. */
  add(vm: VirtualMachine): void {
    this.#machines.push(vm);
  }

  /** Freezes a VM that was booted, keeps what it consists of, and ends it. */
  async keep(vm: VirtualMachine, { spec, ownDisk }: PreparedVm): Promise<FrozenVm> {
    await vm.freeze();
    const [diskLayer, memoryLayer] = [newId("layer"), newId("layer")];
    await this.disks.keepAsLayer(ownDisk, diskLayer);
    const { directory } = this.layout.layer(diskLayer);
    const deviceState = path.join(directory, "device-state");
    const header = path.join(directory, "memory.header");
    await vm.writeState?.({ parent: null, id: newId("generation") });
    await copyFile(spec.files.deviceState, deviceState);
    await chmod(deviceState, 0o400);
    const { writtenMemory } = spec.files.jail;
    const mapped = vm.writeState === undefined ? { file: spec.memory.path } : { written: writtenMemory };
    const capture = { pid: vm.identity.pid, memoryMib, mapped, parentHeader: null, layer: memoryLayer, header };
    await this.#pager.capture(capture, new AbortController().signal);
    await vm.kill();
    await this.disks.detach(spec.sandboxId);
    const disk = { layers: [diskLayer, ...ownDisk.below.layers], rootfs: ownDisk.below.rootfs };
    await this.disks.sealTop(disk);
    const { memory } = this.layout.layer(memoryLayer);
    return { deviceState, memory, header, disk };
  }

  /** What a frozen VM starts from, in a place that was prepared for it; with `uffd`, the pager that will serve one start. */
  async thawing(frozen: FrozenVm, { spec }: PreparedVm, backend: GuestMemory["backend"]): Promise<VmSpec> {
    const start = { from: "frozen", deviceState: frozen.deviceState } as const;
    if (backend === "file") return { ...spec, start, memory: { backend, path: frozen.memory } };
    if (backend === "layers")
      return { ...spec, start, memory: { backend, header: frozen.header, layers: [frozen.memory] } };
    const { files, uid, cgroup } = spec;
    const serving = { files, uid, cgroup, header: frozen.header, workingSet: null, record: files.workingSet };
    const { identity } = await this.#pager.start(serving, new AbortController().signal);
    this.#pagers.push(identity);
    return { ...spec, start, memory: { backend, socket: files.pagerSocket } };
  }

  /** Resolves when every pager has ended by itself, as it does with its VM. */
  async pagersEnded(): Promise<boolean> {
    const ends = this.#pagers.map((pager) => waitForExit(pager, deadlines.engineQuit));
    return (await Promise.all(ends)).every((ended) => ended);
  }

  /** Ends all VMs, and frees what was prepared for them. */
  async clear(): Promise<void> {
    for (const vm of this.#machines.splice(0)) await vm.kill();
    for (const pager of this.#pagers.splice(0)) await endProcess(pager, deadlines.engineQuit);
    for (const { spec, slot, files } of this.#prepared.splice(0)) {
      await this.cgroups.remove(spec.sandboxId);
      await this.disks.detach(spec.sandboxId);
      await this.#slots.release(slot);
      await rm(files.directory, { recursive: true, force: true });
    }
  }

  async close(): Promise<void> {
    await this.#slots.close();
    await this.cgroups.close();
    await rm(this.layout.root, { recursive: true, force: true });
  }
}

/** Whether the guest's agent answers through the slot, before a minute has passed. */
export async function guestAnswers(slot: Slot): Promise<boolean> {
  const answered = await pollUntil(
    async () => {
      try {
        const { ok } = await fetch(`http://${slot.address}:${guestAgentPort}/health`);
        return ok ? true : null;
      } catch {
        return null;
      }
    },
    { timeoutMs: deadlines.guestBoot, intervalMs: 50 },
  );
  return answered === true;
}
