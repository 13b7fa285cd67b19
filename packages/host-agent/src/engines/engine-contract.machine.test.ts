/** What every engine must do, whichever program it is. Runs real VMs of the built-in template. */
import { readFile, readlink, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { isAlive, type ProcessIdentity, run } from "@wrenn/system";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { cgroupControllers } from "./cgroups.ts";
import type { Engine } from "./engine.ts";
import { adoptVm, findEngineProcesses } from "./engines.ts";
import { readKvmVerdict } from "./qemu/kvm.ts";
import { contractEngines, firecrackerPrograms } from "./testing/contract-engines.ts";
import { guestAnswers, VmBench } from "./testing/vm-bench.ts";
import { enginesGid, jailsGid } from "./users.ts";

const tag = "ec01";

for (const { title, choice, disks, skipped } of await contractEngines()) {
  describe.skipIf(skipped)(`an engine (${title})`, () => {
    let bench: VmBench;
    let engine: Engine;

    beforeAll(async () => {
      bench = await VmBench.open(tag, "10.241.16.0/24", disks);
      engine = await bench.engine(choice);
    });

    afterAll(async () => {
      await bench.close();
    });

    afterEach(async () => {
      await bench.clear();
    });

    it("boots a guest without any of root's powers, lets go of it, takes it over again and ends it", async () => {
      const { spec, slot, files } = await bench.prepare();
      const spawned: ProcessIdentity[] = [];
      const vm = await bench.start(engine, spec, spawned);
      expect(spawned).toEqual([vm.identity]);
      await expect(guestAnswers(slot)).resolves.toBe(true);

      const status = await readFile(`/proc/${vm.identity.pid}/status`, "utf8");
      const field = (name: string): string | undefined =>
        new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*$`, "m").exec(status)?.[1];
      expect(field("Uid")?.split("\t")).toEqual(Array.from({ length: 4 }, () => String(slot.uid)));
      const kvmGroups = engine.kind === "qemu-kvm" ? [(await stat("/dev/kvm")).gid] : [];
      const [gid, groups] =
        choice === "firecracker" ? [jailsGid, ""] : [slot.uid, [...new Set([enginesGid, ...kvmGroups])].join(" ")];
      expect(field("Gid")?.split("\t")).toEqual(Array.from({ length: 4 }, () => String(gid)));
      expect(field("Groups")).toBe(groups);
      for (const set of ["CapInh", "CapPrm", "CapEff", "CapAmb"]) expect(field(set)).toBe("0000000000000000");
      // The jailer leaves what could be gained, which without new privileges is nothing.
      const bounds = choice === "firecracker" ? /^[0-9a-f]{16}$/ : /^0{16}$/;
      expect(field("CapBnd")).toMatch(bounds);
      expect(field("NoNewPrivs")).toBe("1");
      expect(field("Seccomp")).toBe("2");
      for (const namespace of ["net", "mnt", "ipc", "uts"]) {
        const own = await readlink(`/proc/${vm.identity.pid}/ns/${namespace}`);
        expect(own).not.toBe(await readlink(`/proc/self/ns/${namespace}`));
      }
      const joined = await readFile(`/proc/${vm.identity.pid}/cgroup`, "utf8");
      expect(joined.includes(`/wrenn/${tag}/${spec.sandboxId}`)).toBe(
        bench.cgroups.missing.length < cgroupControllers.length,
      );

      await vm.detach();
      const adopted = await adoptVm(vm.identity, files, spec.sandboxId);
      bench.add(adopted);
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
      const { spec, slot, files } = await bench.prepare();
      await writeFile(files.journal, "{}", { mode: 0o600 });
      const runAs = (uid: number, ...command: string[]): Promise<unknown> =>
        run("setpriv", ["--reuid", `${uid}`, "--regid", `${uid}`, "--groups", `${enginesGid}`, "--", ...command]);
      await expect(runAs(slot.uid, "head", "-c1", spec.disk.path)).resolves.toBeDefined();
      await expect(runAs(slot.uid + 2, "head", "-c1", spec.disk.path)).rejects.toMatchObject({
        code: "subprocess_failed",
      });
      await expect(runAs(slot.uid, "cat", files.journal)).rejects.toMatchObject({ code: "subprocess_failed" });
      await expect(runAs(slot.uid, "rm", "-f", files.journal)).rejects.toMatchObject({ code: "subprocess_failed" });
    });

    it("tells a kernel panic from the death of its own process, with the console's last words", async () => {
      const { spec } = await bench.prepare();
      const empty = path.join(bench.layout.root, "empty");
      await writeFile(empty, Buffer.alloc(1_048_576), { mode: 0o644 });
      // Without an init the kernel gives up, which is a panic.
      const panicked = await bench.start(engine, { ...spec, start: { ...spec.start, initramfs: empty } });
      await expect(panicked.ended).resolves.toMatchObject({
        code: "guest_panicked",
        consoleTail: expect.stringContaining("Kernel panic - not syncing") as string,
      });
      await panicked.kill();
      await expect(isAlive(panicked.identity)).resolves.toBe(false);

      const killed = await bench.start(engine, spec);
      process.kill(killed.identity.pid, "SIGKILL");
      await expect(killed.ended).resolves.toMatchObject({ code: "vm_died" });
    });

    it("says in the engine's own words why it did not start, and leaves no process", async () => {
      const { spec, files } = await bench.prepare();
      const disk = { ...spec.disk, path: path.join(bench.layout.root, "no-such-disk") };
      await expect(bench.start(engine, { ...spec, disk })).rejects.toMatchObject({
        code: "engine_failed",
        message: expect.stringContaining("no-such-disk") as string,
      });
      await expect(findEngineProcesses(files)).resolves.toEqual([]);
    });
  });
}

describe("the choice of an engine", () => {
  let bench: VmBench;

  beforeAll(async () => {
    bench = await VmBench.open(tag, "10.241.16.0/24");
  });

  afterAll(async () => {
    await bench.close();
  });

  it("is the best that works here, has a reason, and a verdict on KVM that is remembered for this boot of the host", async () => {
    const engine = await bench.engine("auto");
    expect(engine.reason).toMatch(/^[A-Z].*\.$|KVM/s);
    // A machine without /dev/kvm has nothing to remember.
    const verdict = await readKvmVerdict(bench.layout);
    const isFirecrackerThere = Object.values(firecrackerPrograms()).every((name) => name !== "");
    const best = isFirecrackerThere && bench.disks.openedAs === "raw" ? "firecracker" : "qemu-kvm";
    expect(engine.kind).toBe(verdict?.usable === true ? best : "qemu-tcg");
    await expect(bench.engine("auto")).resolves.toMatchObject({ kind: engine.kind, reason: engine.reason });
    expect(await readKvmVerdict(bench.layout)).toEqual(verdict);
  });
});
