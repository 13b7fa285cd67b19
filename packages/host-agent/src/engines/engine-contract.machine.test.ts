/** What every engine must do, whichever program it is. Runs real VMs of the built-in template. */
import { chmod, chown, mkdir, mkdtemp, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { deadlines, guestAgentPort, minimalTemplateId, newId, platformTeamId, type SandboxId } from "@wrenn/contract";
import {
  isAlive,
  layoutFromEnvironment,
  pollUntil,
  type ProcessIdentity,
  run,
  type SandboxLayout,
  wrennLayout,
} from "@wrenn/system";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { findBootFiles, findTemplate } from "../disks/boot-files.ts";
import { createOverlay } from "../disks/qcow2.ts";
import { type Slot, SlotPool } from "../network/slot-pool.ts";
import { makeBlankMemory } from "./blank-memory.ts";
import { cgroupControllers, Cgroups } from "./cgroups.ts";
import type { Engine, VirtualMachine, VmSpec } from "./engine.ts";
import { adoptVm, Engines, findEngineProcesses } from "./engines.ts";
import { readKvmVerdict } from "./qemu/kvm.ts";
import { enginesGid } from "./users.ts";

const installed = layoutFromEnvironment();
const tag = "ec01";

let pool: SlotPool;
let cgroups: Cgroups;
let root: string;
let layout: ReturnType<typeof wrennLayout>;

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "wrenn-"));
  await chmod(root, 0o711);
  layout = wrennLayout(root);
  await mkdir(layout.sandboxes, { mode: 0o711 });
  await mkdir(layout.run);
  cgroups = await Cgroups.open(tag, pino({ level: "silent" }));
  pool = await SlotPool.open({ cidr: "10.241.16.0/24", instance: tag, poolSize: 0 }, []);
});

afterAll(async () => {
  await pool.close();
  await cgroups.close();
  await rm(root, { recursive: true, force: true });
});

describe.each([{ choice: "tcg" as const }])("an engine ($choice)", ({ choice }) => {
  let engine: Engine;
  let slot: Slot;
  let files: SandboxLayout;
  let id: SandboxId;
  const machines: VirtualMachine[] = [];

  beforeAll(async () => {
    const bootFiles = () => findBootFiles(installed);
    engine = await new Engines({ layout, cgroups, choice, qemu: undefined, bootFiles }).current();
  });

  afterEach(async () => {
    for (const vm of machines.splice(0)) await vm.kill();
    await cgroups.remove(id);
    await pool.release(slot);
    await rm(files.directory, { recursive: true, force: true });
  });

  /** A slot, a directory, a disk and a cgroup, as a creation would have them ready. */
  async function prepare(overrides: Partial<VmSpec> = {}): Promise<VmSpec> {
    id = newId("sandbox");
    slot = await pool.acquire();
    files = layout.sandbox(id);
    await mkdir(files.directory);
    await chown(files.directory, 0, slot.uid);
    await chmod(files.directory, 0o1770);
    const boot = await findBootFiles(installed);
    const template = await findTemplate(installed, platformTeamId, minimalTemplateId);
    if (template.type !== "base") throw new Error("the built-in template is not a base template");
    const backing = { path: template.rootfs, format: "raw" } as const;
    await createOverlay({ file: files.overlay, backing, sizeMib: template.diskMib, uid: slot.uid });
    const cgroup = await cgroups.create(id, { memoryMib: 640, cpus: 2, pids: 100 });
    const memoryMib = 256;
    await makeBlankMemory(files.blankMemory, memoryMib);
    const common = { sandboxId: id, vcpus: 1, memoryMib, overlay: files.overlay, files, cgroup };
    const start = { from: "boot", kernel: boot.kernel, initramfs: boot.initramfs } as const;
    const memory = { backend: "file", path: files.blankMemory } as const;
    return { ...common, start, memory, network: slot, uid: slot.uid, ...overrides };
  }

  async function start(spec: VmSpec, spawned: ProcessIdentity[] = []): Promise<VirtualMachine> {
    const noteSpawn = async (identity: ProcessIdentity): Promise<void> => {
      spawned.push(identity);
    };
    const vm = await engine.start(spec, noteSpawn, new AbortController().signal);
    machines.push(vm);
    return vm;
  }

  it("boots a guest without any of root's powers, lets go of it, takes it over again and ends it", async () => {
    const spec = await prepare();
    const spawned: ProcessIdentity[] = [];
    const vm = await start(spec, spawned);
    expect(spawned).toEqual([vm.identity]);
    await expect(guestAnswers(slot)).resolves.toBe(true);

    const status = await readFile(`/proc/${vm.identity.pid}/status`, "utf8");
    const field = (name: string): string | undefined => new RegExp(`^${name}:\\s*(.*?)\\s*$`, "m").exec(status)?.[1];
    expect(field("Uid")?.split("\t")).toEqual(Array.from({ length: 4 }, () => String(slot.uid)));
    expect(field("Gid")?.split("\t")).toEqual(Array.from({ length: 4 }, () => String(slot.uid)));
    expect(field("Groups")).toBe(String(enginesGid));
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) expect(field(set)).toBe("0000000000000000");
    expect(field("NoNewPrivs")).toBe("1");
    expect(field("Seccomp")).toBe("2");
    for (const namespace of ["net", "mnt", "ipc", "uts"]) {
      const own = await readlink(`/proc/${vm.identity.pid}/ns/${namespace}`);
      expect(own).not.toBe(await readlink(`/proc/self/ns/${namespace}`));
    }
    const joined = await readFile(`/proc/${vm.identity.pid}/cgroup`, "utf8");
    expect(joined.includes(`/wrenn/${tag}/${id}`)).toBe(cgroups.missing.length < cgroupControllers.length);

    await vm.detach();
    const adopted = await adoptVm(vm.identity, files);
    machines.push(adopted);
    await expect(guestAnswers(slot)).resolves.toBe(true);
    await expect(findEngineProcesses(files)).resolves.toEqual([vm.identity]);

    let reported = false;
    void adopted.ended.finally(() => {
      reported = true;
    });
    await adopted.kill();
    await expect(isAlive(vm.identity)).resolves.toBe(false);
    expect(reported, "an end that was asked for is not reported").toBe(false);
  });

  it("keeps a sandbox's disk from other engines, and its journal from its own", async () => {
    const spec = await prepare();
    await writeFile(files.journal, "{}", { mode: 0o600 });
    const runAs = (uid: number, ...command: string[]): Promise<unknown> =>
      run("setpriv", ["--reuid", `${uid}`, "--regid", `${uid}`, "--groups", `${enginesGid}`, "--", ...command]);
    await expect(runAs(slot.uid, "ls", spec.overlay)).resolves.toBeDefined();
    await expect(runAs(slot.uid + 2, "ls", spec.overlay)).rejects.toMatchObject({ code: "subprocess_failed" });
    await expect(runAs(slot.uid, "cat", files.journal)).rejects.toMatchObject({ code: "subprocess_failed" });
    await expect(runAs(slot.uid, "rm", "-f", files.journal)).rejects.toMatchObject({ code: "subprocess_failed" });
  });

  it("tells a kernel panic from the death of its own process, with the console's last words", async () => {
    const spec = await prepare();
    const empty = path.join(root, "empty");
    await writeFile(empty, Buffer.alloc(1_048_576), { mode: 0o644 });
    const boot = await findBootFiles(installed);
    // Without an init the kernel gives up, which is a panic.
    const panicked = await start({ ...spec, start: { from: "boot", kernel: boot.kernel, initramfs: empty } });
    await expect(panicked.ended).resolves.toMatchObject({
      code: "guest_panicked",
      consoleTail: expect.stringContaining("Kernel panic - not syncing") as string,
    });
    await panicked.kill();
    await expect(isAlive(panicked.identity)).resolves.toBe(false);

    const killed = await start(spec);
    process.kill(killed.identity.pid, "SIGKILL");
    await expect(killed.ended).resolves.toMatchObject({ code: "vm_died" });
  });

  it("says in the engine's own words why it did not start, and leaves no process", async () => {
    const spec = await prepare({ overlay: path.join(root, "no-such-disk.qcow2") });
    await expect(start(spec)).rejects.toMatchObject({
      code: "engine_failed",
      message: expect.stringContaining("no-such-disk.qcow2") as string,
    });
    await expect(findEngineProcesses(files)).resolves.toEqual([]);
  });
});

/** Whether the guest's agent answers through the slot, before a minute has passed. */
async function guestAnswers(slot: Slot): Promise<boolean> {
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

describe("the choice of an engine", () => {
  it("has a reason, and a verdict on KVM that is remembered for this boot of the host", async () => {
    const bootFiles = () => findBootFiles(installed);
    const config = { layout, cgroups, choice: "auto" as const, qemu: undefined, bootFiles };
    const engine = await new Engines(config).current();
    expect(engine.reason).toMatch(/^[A-Z].*\.$|KVM/s);
    // A machine without /dev/kvm has nothing to remember.
    const verdict = await readKvmVerdict(layout);
    expect(engine.kind).toBe(verdict?.usable === true ? "qemu-kvm" : "qemu-tcg");
    await expect(new Engines(config).current()).resolves.toMatchObject({ kind: engine.kind, reason: engine.reason });
    expect(await readKvmVerdict(layout)).toEqual(verdict);
  });
});
