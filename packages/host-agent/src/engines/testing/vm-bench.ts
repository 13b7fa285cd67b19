/** For tests: all that a creation has ready when it starts an engine, what a pause keeps of one, and both cleared away. */
import { chmod, chown, copyFile, mkdir, mkdtemp, open, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { deadlines, guestAgentPort, minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import {
  type Layout,
  layoutFromEnvironment,
  pollUntil,
  type ProcessIdentity,
  type SandboxLayout,
  wrennLayout,
} from "@wrenn/system";
import { pino } from "pino";
import { findBootFiles, findTemplate, type TemplateFiles } from "../../disks/boot-files.ts";
import { createOverlay, keepAsDiskLayer, sealDiskLayer } from "../../disks/qcow2.ts";
import type { Backing } from "../../disks/qcow2-header.ts";
import { type Slot, SlotPool } from "../../network/slot-pool.ts";
import { makeBlankMemory } from "../blank-memory.ts";
import { Cgroups } from "../cgroups.ts";
import type { Engine, VirtualMachine, VmSpec, VmStart } from "../engine.ts";
import { type EngineChoice, Engines } from "../engines.ts";

/** The least that boots quickly; what the tests hold in a guest's memory is small. */
const memoryMib = 256;
const mebibyte = 1_048_576;

export interface PreparedVm {
  /** Of a guest that boots. */
  readonly spec: VmSpec & { readonly start: Extract<VmStart, { from: "boot" }> };
  readonly slot: Slot;
  readonly files: SandboxLayout;
}

/** What a pause keeps. */
export interface FrozenVm {
  readonly deviceState: string;
  readonly memory: string;
  readonly disk: Backing;
}

export class VmBench {
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  readonly template: TemplateFiles;
  readonly #slots: SlotPool;
  readonly #prepared: PreparedVm[] = [];
  readonly #machines: VirtualMachine[] = [];

  private constructor(layout: Layout, cgroups: Cgroups, slots: SlotPool, template: TemplateFiles) {
    this.layout = layout;
    this.cgroups = cgroups;
    this.#slots = slots;
    this.template = template;
  }

  /** @param tag tells its cgroups and slots from those of others on this machine, as does `cidr` its addresses */
  static async open(tag: string, cidr: string): Promise<VmBench> {
    const installed = layoutFromEnvironment();
    const layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-")));
    await chmod(layout.root, 0o711);
    for (const directory of [layout.sandboxes, layout.layers]) await mkdir(directory, { mode: 0o711 });
    await mkdir(layout.run);
    for (const borrowed of ["boot", "bin", "images"] as const) await symlink(installed[borrowed], layout[borrowed]);
    const cgroups = await Cgroups.open(tag, pino({ level: "silent" }));
    const slots = await SlotPool.open({ cidr, instance: tag, poolSize: 0 }, []);
    const template = await findTemplate(layout, platformTeamId, minimalTemplateId);
    if (template.type !== "base") throw new Error("the built-in template is a snapshot");
    return new VmBench(layout, cgroups, slots, template);
  }

  async engine(choice: EngineChoice, layout = this.layout): Promise<Engine> {
    const bootFiles = () => findBootFiles(this.layout);
    return new Engines({ layout, cgroups: this.cgroups, choice, qemu: undefined, bootFiles }).current();
  }

  /** A slot, a directory, a disk and a cgroup. */
  async prepare(backing: Backing = { path: this.template.rootfs, format: "raw" }): Promise<PreparedVm> {
    const sandboxId = newId("sandbox");
    const slot = await this.#slots.acquire();
    const { uid } = slot;
    const files = this.layout.sandbox(sandboxId);
    await mkdir(files.directory);
    await chown(files.directory, 0, uid);
    await chmod(files.directory, 0o1770);
    await createOverlay({ file: files.overlay, backing, sizeMib: this.template.diskMib, uid });
    await makeBlankMemory(files.blankMemory, memoryMib);
    const { kernel, initramfs } = await findBootFiles(this.layout);
    const spec = {
      sandboxId,
      vcpus: 1,
      memoryMib,
      start: { from: "boot", kernel, initramfs } as const,
      memory: { backend: "file", path: files.blankMemory } as const,
      overlay: files.overlay,
      files,
      network: slot,
      uid,
      cgroup: await this.cgroups.create(sandboxId, { memoryMib: 640, cpus: 2, pids: 100 }),
    };
    const prepared = { spec, slot, files };
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

  /** Freezes a VM, keeps what it consists of, and ends it. */
  async keep(vm: VirtualMachine, { spec }: PreparedVm, backing?: Backing): Promise<FrozenVm> {
    await vm.freeze();
    const layer = this.layout.layer(newId("layer"));
    await keepAsDiskLayer(spec.overlay, layer);
    await copyMemory(vm.identity.pid, layer.memory);
    const deviceState = path.join(layer.directory, "device-state");
    await copyFile(spec.files.deviceState, deviceState);
    await chmod(deviceState, 0o400);
    await vm.kill();
    await sealDiskLayer(layer, backing ?? { path: this.template.rootfs, format: "raw" });
    return { deviceState, memory: layer.memory, disk: { path: layer.disk, format: "qcow2" } };
  }

  /** Ends all VMs, and frees what was prepared for them. */
  async clear(): Promise<void> {
    for (const vm of this.#machines.splice(0)) await vm.kill();
    for (const { spec, slot, files } of this.#prepared.splice(0)) {
      await this.cgroups.remove(spec.sandboxId);
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

/** Copies a guest's memory out of its engine: the one mapping of exactly its size. Zeros become holes. */
async function copyMemory(pid: number, target: string): Promise<void> {
  const bytes = memoryMib * mebibyte;
  const ranges = (await readFile(`/proc/${pid}/maps`, "utf8")).split("\n").map((line) => {
    const [from = 0, to = 0] = line.split(/[- ]/, 2).map((address) => Number.parseInt(address, 16));
    return { from, to };
  });
  const guest = ranges.find(({ from, to }) => to - from === bytes);
  if (guest === undefined) throw new Error(`process ${pid} has no mapping of ${bytes} bytes`);
  const source = await open(`/proc/${pid}/mem`, "r");
  const copy = await open(target, "wx", 0o400);
  try {
    const piece = Buffer.alloc(mebibyte);
    const zeros = Buffer.alloc(mebibyte);
    for (let offset = 0; offset < bytes; offset += mebibyte) {
      await source.read(piece, 0, mebibyte, guest.from + offset);
      if (!piece.equals(zeros)) await copy.write(piece, 0, mebibyte, offset);
    }
    await copy.truncate(bytes);
  } finally {
    await source.close();
    await copy.close();
  }
}
