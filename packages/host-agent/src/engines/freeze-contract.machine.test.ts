/** What every engine must do with guests that are frozen, whichever program it is. Runs real VMs of the built-in template. */
import { mkdir, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { newId } from "@wrenn/contract";
import { fileIdentity, isAlive, run, wrennLayout } from "@wrenn/system";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { executeAt } from "../testing/guest.ts";
import type { Engine, GuestMemory, VirtualMachine } from "./engine.ts";
import { adoptVm, findAllEngineProcesses, findEngineProcesses } from "./engines.ts";
import { contractEngines } from "./testing/contract-engines.ts";
import { type FrozenVm, guestAnswers, type PreparedVm, VmBench } from "./testing/vm-bench.ts";
import { enginesGid, jailsGid } from "./users.ts";

for (const { title, choice, disks, skipped } of await contractEngines()) {
  describe.skipIf(skipped)(`an engine (${title})`, () => {
    const isFirecracker = choice === "firecracker";
    let bench: VmBench;
    let engine: Engine;
    /** A guest that counts, and holds a file on its disk and one in its memory. */
    let frozen: FrozenVm;
    let held: { readonly counter: string; readonly onDisk: string; readonly inMemory: string };

    beforeAll(async () => {
      bench = await VmBench.open("ec02", "10.241.17.0/24", disks);
      engine = await bench.engine(choice);
      const prepared = await bench.prepare();
      const vm = await bench.start(engine, prepared.spec);
      await guestAnswers(prepared.slot);
      const inGuest = (command: string): Promise<string> => executeAt(prepared.slot.address, command);
      await inGuest("head -c 4000000 /dev/urandom > /dev/shm/held; head -c 1000000 /dev/urandom > /root/held; sync");
      await inGuest(`setsid sh -c '${count}' > /dev/null 2>&1 < /dev/null & echo $! > /dev/shm/pid`);
      await inGuest("until test -e /dev/shm/count; do sleep 0.05; done");
      held = {
        counter: await inGuest("cat /dev/shm/pid"),
        onDisk: await inGuest("sha256sum /root/held"),
        inMemory: await inGuest("sha256sum /dev/shm/held"),
      };
      frozen = await bench.keep(vm, prepared);
      await bench.clear();
    });

    afterEach(async () => {
      await bench.clear();
    });

    afterAll(async () => {
      await bench.close();
    });

    type Backend = GuestMemory["backend"];

    /** Starts the frozen guest in another slot, directory and overlay, as another user. */
    async function restore(backend: Backend = "file"): Promise<PreparedVm & { readonly vm: VirtualMachine }> {
      const prepared = await bench.prepare(frozen.disk);
      return { ...prepared, vm: await bench.start(engine, await bench.thawing(frozen, prepared, backend)) };
    }

    const backends = ["file", ...(isFirecracker ? [] : ["layers" as const]), "uffd"] as const;
    describe.each(backends.map((backend) => ({ backend })))("with memory by $backend", ({ backend }) => {
      it("lets a frozen guest go on elsewhere as another user, with its processes, memory and files", async () => {
        const places = await Promise.all([restore(backend), restore(backend)]);
        for (const { slot } of places) {
          const inGuest = (command: string): Promise<string> => executeAt(slot.address, command);
          expect(await inGuest("sha256sum /dev/shm/held")).toBe(held.inMemory);
          expect(await inGuest("sha256sum /root/held")).toBe(held.onDisk);
          const before = Number(await inGuest("cat /dev/shm/count"));
          await expect.poll(async () => Number(await inGuest("cat /dev/shm/count"))).toBeGreaterThan(before);
          expect(await inGuest(`kill -0 ${held.counter.trim()} && echo lives`)).toBe("lives\n");
        }
        const [one, other] = places.map(({ vm, spec }) => ({ pid: vm.identity.pid, uid: spec.uid }));
        expect(one).not.toEqual(other);
        // What one writes is neither the other's nor the frozen state's.
        await executeAt(
          places[0].slot.address,
          "dd if=/dev/zero of=/dev/shm/held bs=1M count=2 conv=notrunc; echo > /root/held; sync",
        );
        expect(await executeAt(places[1].slot.address, "sha256sum /dev/shm/held /root/held")).toBe(
          held.inMemory + held.onDisk,
        );
        const { slot } = await restore(backend);
        expect(await executeAt(slot.address, "sha256sum /dev/shm/held /root/held")).toBe(held.inMemory + held.onDisk);
      });

      it("says of a guest that it is frozen, also after a host agent's restart, and does not take it for ended", async () => {
        const { vm, slot, files, spec } = await restore(backend);
        let ended = false;
        void vm.ended.then(() => (ended = true));
        await expect(vm.isFrozen()).resolves.toBe(false);
        await vm.freeze();
        await vm.freeze();
        await expect(vm.isFrozen()).resolves.toBe(true);
        await vm.detach();
        const adopted = await adoptVm(vm.identity, files, spec.sandboxId);
        bench.add(adopted);
        void adopted.ended.then(() => (ended = true));
        await expect(adopted.isFrozen()).resolves.toBe(true);
        await adopted.thaw();
        await adopted.thaw();
        await expect(adopted.isFrozen()).resolves.toBe(false);
        await expect(guestAnswers(slot)).resolves.toBe(true);
        expect(ended).toBe(false);
      });

      it("writes to the new overlay alone once disks are switched, three times over", async () => {
        const { vm, slot, files, ownDisk } = await restore(backend);
        let present = ownDisk;
        for (const round of [0, 1, 2]) {
          await executeAt(slot.address, `echo ${round} > /root/round-${round}; sync`);
          await vm.freeze();
          const layer = newId("layer");
          await bench.disks.keepAsLayer(present, layer);
          const file = round % 2 === 0 ? files.otherOverlay(bench.disks.format) : files.overlay(bench.disks.format);
          const next = { ...present, file, below: { ...present.below, layers: [layer, ...present.below.layers] } };
          await bench.disks.createOverlay(next);
          await bench.disks.switchOverlay(vm, next);
          await expect(
            bench.disks.finishSwitch({ sandboxId: present.sandboxId, process: vm.identity }, file),
          ).resolves.toBe(true);
          const kept = bench.layout.layer(layer).disk(bench.disks.format);
          const content = await digestOf(kept);
          await rm(present.file);
          await vm.thaw();
          await executeAt(slot.address, `head -c 1000000 /dev/urandom > /root/after-${round}; sync`);
          expect(await digestOf(kept)).toBe(content);
          expect((await stat(file)).blocks * 512).toBeGreaterThan(1_000_000);
          present = next;
        }
        expect(await executeAt(slot.address, "cat /root/round-*; sha256sum /root/held")).toBe(
          `0\n1\n2\n${held.onDisk}`,
        );
      });

      it("leaves nothing of 20 restores", async () => {
        const prepared = await bench.prepare(frozen.disk);
        const seen: { readonly descriptors: number; readonly entries: string[] }[] = [];
        for (let round = 0; round < 20; round++) {
          const vm = await bench.start(engine, await bench.thawing(frozen, prepared, backend));
          await vm.kill();
          await expect(isAlive(vm.identity)).resolves.toBe(false);
          await expect(bench.pagersEnded()).resolves.toBe(true);
          const entries = (await readdir(prepared.files.directory)).toSorted();
          seen.push({ descriptors: await descriptorsInUse(), entries });
        }
        await expect(findAllEngineProcesses(bench.layout)).resolves.toEqual([]);
        expect(seen.at(-1)?.entries).toEqual(seen[0]?.entries);
        expect(seen.at(-1)?.descriptors).toBeLessThanOrEqual(seen[1]?.descriptors ?? 0);
      });
    });

    it("freezes what another user's engine has left its state behind for", async () => {
      const { vm, files } = await restore();
      await writeFile(files.deviceState, "old", { mode: 0o600 });
      await vm.freeze();
      await vm.writeState?.({ parent: null, id: newId("generation") });
      expect((await readFile(files.deviceState)).length).toBeGreaterThan(1_000);
    });

    it.skipIf(disks !== "qcow2")(
      "refuses to switch disks when its own has been put elsewhere, or the guest runs",
      async () => {
        const { vm, slot, files, ownDisk } = await restore();
        const layer = newId("layer");
        await bench.disks.keepAsLayer(ownDisk, layer);
        const below = { ...frozen.disk, layers: [layer, ...frozen.disk.layers] };
        const next = { ...ownDisk, file: files.otherOverlay("qcow2"), below };
        await bench.disks.createOverlay(next);
        await expect(bench.disks.switchOverlay(vm, next)).rejects.toMatchObject({ code: "engine_failed" });
        await vm.freeze();
        await rename(ownDisk.file, `${ownDisk.file}.away`);
        await bench.disks.createOverlay(ownDisk);
        await expect(bench.disks.switchOverlay(vm, next)).rejects.toMatchObject({
          code: "engine_failed",
          message: expect.stringContaining(ownDisk.file) as string,
        });
        await vm.thaw();
        expect(await executeAt(slot.address, "echo more >> /root/held && sync && echo written")).toBe("written\n");
      },
    );

    it("cannot write the memory and the disk that it was started from", async () => {
      const { vm, spec } = await restore();
      const [layer] = frozen.disk.layers;
      const frozenDisk = layer === undefined ? "" : bench.layout.layer(layer).disk(bench.disks.format);
      const { pid } = vm.identity;
      // By what they lead to: a jailed engine knows the same files by other names.
      const shared = new Set(await Promise.all([frozen.memory, frozenDisk].map(fileIdentity)));
      for (const name of await readdir(`/proc/${pid}/fd`)) {
        if (!shared.has(await fileIdentity(`/proc/${pid}/fd/${name}`))) continue;
        const flags = /^flags:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/fdinfo/${name}`, "utf8"))?.[1];
        expect(Number.parseInt(flags ?? "", 8) & 0o3, "opened read-only").toBe(0);
      }
      const { ino } = await stat(frozen.memory);
      const mapped = (await readFile(`/proc/${pid}/maps`, "utf8"))
        .split("\n")
        .filter((line) => line.split(" ")[4] === String(ino));
      expect(mapped.map((line) => line.split(" ")[1])).toEqual(["rw-p"]);
      for (const file of [frozen.memory, frozenDisk]) {
        const asEngine = [
          "--reuid",
          `${spec.uid}`,
          "--regid",
          `${spec.uid}`,
          "--groups",
          `${enginesGid},${jailsGid}`,
          "--",
          "tee",
          "-a",
          file,
        ];
        await expect(run("setpriv", asEngine, { input: "x" })).rejects.toMatchObject({ code: "subprocess_failed" });
      }
    });

    it("says why a frozen state cannot be taken up, and leaves no process and no descriptor", async () => {
      const prepared = await bench.prepare(frozen.disk);
      const thawing = await bench.thawing(frozen, prepared, "file");
      const { files } = prepared;
      const open = await descriptorsInUse();
      const short = path.join(bench.layout.root, "short");
      await writeFile(short, (await readFile(frozen.deviceState)).subarray(0, 6_000));
      const smaller = path.join(bench.layout.root, "smaller");
      await writeFile(smaller, "");
      await truncate(smaller, 1_048_576);
      const none = path.join(bench.layout.root, "none");
      const cases = [
        {
          broken: { start: { from: "frozen", deviceState: short } },
          code: "engine_failed",
          says: isFirecracker ? "/snapshot/load" : "load of migration failed",
        },
        { broken: { start: { from: "frozen", deviceState: none } }, code: "snapshot_damaged", says: none },
        { broken: { memory: { backend: "file", path: none } }, code: "snapshot_damaged", says: none },
        { broken: { memory: { backend: "file", path: smaller } }, code: "snapshot_damaged", says: "1048576 bytes" },
        { broken: { disk: { ...thawing.disk, path: none } }, code: "engine_failed", says: none },
        { broken: { memory: { backend: "uffd", socket: none } }, code: "engine_failed", says: none },
      ] as const;
      for (const { broken, code, says } of cases) {
        const message = expect.stringContaining(says) as string;
        await expect(bench.start(engine, { ...thawing, ...broken })).rejects.toMatchObject({ code, message });
        await expect(findEngineProcesses(files)).resolves.toEqual([]);
      }
      // What was still being closed when they were counted has gone meanwhile.
      expect(await descriptorsInUse()).toBeLessThanOrEqual(open);
    });

    it.skipIf(disks !== "qcow2")(
      "runs no guest in memory that is not its own, should the library not be loaded",
      async () => {
        const prepared = await bench.prepare(frozen.disk);
        const thawing = await bench.thawing(frozen, prepared, "file");
        const layout = wrennLayout(path.join(bench.layout.root, "incomplete"));
        for (const directory of [layout.bin, layout.run]) await mkdir(directory, { recursive: true });
        await symlink(bench.layout.boot, layout.boot);
        const incomplete = await bench.engine(choice, layout);
        await expect(bench.start(incomplete, thawing)).rejects.toMatchObject({ code: "boot_files_missing" });
        await writeFile(layout.memoryLibrary, "no library");
        await expect(bench.start(incomplete, thawing)).rejects.toMatchObject({ code: "engine_failed" });
        await expect(findEngineProcesses(prepared.files)).resolves.toEqual([]);
      },
    );

    it("says what a frozen guest depends on: another size or another engine is another machine", async () => {
      const size = { vcpus: 1, memoryMib: 256 };
      const machine = await engine.identify(size);
      await expect(engine.identify(size)).resolves.toEqual(machine);
      expect(machine).toMatchObject({ engine: engine.kind, version: engine.version });
      for (const other of [
        { ...size, vcpus: 2 },
        { ...size, memoryMib: 512 },
      ]) {
        expect((await engine.identify(other)).machine).not.toBe(machine.machine);
      }
    });
  });
}

/** A process of the guest that would miss nothing but the time it was frozen. */
const count = "i=0; while sleep 0.1; do i=$((i+1)); echo $i > /dev/shm/count; done";

/** Of what a file holds. Its holes, which take long to read, are not read. */
async function digestOf(file: string): Promise<string> {
  const plain = "--format=gnu --mtime=@0 --owner=0 --group=0 --mode=0 --absolute-names";
  return (await run("sh", ["-euc", `tar --create --sparse ${plain} --file=- -- "$1" | sha256sum`, "sh", file])).stdout;
}

async function descriptorsInUse(): Promise<number> {
  return (await readdir("/proc/self/fd")).length;
}
