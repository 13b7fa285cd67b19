/**
 * What a sandbox must do with every combination of engine, disks and memory that makes sense: the engine that `WRENN_ENGINE` names, and
 * Firecracker, with each format of disks that the engine can open, and both ways of bringing memory back.
 */
import { diskFormats, hostAgentProto, memoryBackends, parseUuid } from "@wrenn/contract";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { detectDmSnapshot } from "../disks/dm-snapshot/detect.ts";
import { contractEngines } from "../engines/testing/contract-engines.ts";
import { readManifest } from "../memory/read-manifest.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { OccupiedGuest } from "../testing/occupied-guest.ts";
import { forget, TestSandbox } from "../testing/test-sandbox.ts";

const { SandboxState, RecoverySource } = hostAgentProto;

/** An emulated processor that itself has hardware virtualisation takes a minute where others take seconds. */
const longMs = 900_000;

const dmSnapshot = await detectDmSnapshot();
const combinations = (await contractEngines()).flatMap(({ title, choice, skipped }) =>
  diskFormats
    .filter((disks) => choice !== "firecracker" || disks === "dm-snapshot")
    .flatMap((disks) => {
      const obstacle = disks === "dm-snapshot" && !dmSnapshot.usable ? `, skipped: ${dmSnapshot.reason}` : "";
      const isSkipped = skipped || obstacle !== "";
      return memoryBackends.map((memory) => ({
        name: `${title}, ${disks} and memory by ${memory}${obstacle}`,
        choice,
        disks,
        memory,
        isSkipped,
      }));
    }),
);

const nothing = { engines: [], cgroups: [], blockDevices: [] };

let agent: TestHostAgent;

/** A sandbox with something to lose. */
async function occupied(): Promise<{ sandbox: TestSandbox; guest: OccupiedGuest }> {
  const sandbox = await TestSandbox.create(agent);
  return { sandbox, guest: await OccupiedGuest.occupy(agent.layout.hostAgentSocket, sandbox.id) };
}

const known = ({ id }: TestSandbox): OccupiedGuest => OccupiedGuest.known(agent.layout.hostAgentSocket, id);

for (const { name, choice, disks, memory, isSkipped } of combinations) {
  describe.skipIf(isSkipped)(`a sandbox with ${name},`, { timeout: longMs }, () => {
    beforeAll(async () => {
      const environment = { WRENN_ENGINE: choice, WRENN_DISKS: disks, WRENN_MEMORY: memory };
      agent = await TestHostAgent.prepare(environment);
      await agent.start();
    }, longMs);

    afterAll(async () => {
      await agent.remove();
    }, longMs);

    afterEach(async () => {
      const { sandboxes } = await agent.client.listSandboxes({});
      for (const { sandboxId } of sandboxes) await agent.client.destroySandbox({ sandboxId });
    }, longMs);

    it("is restored from a guest that was booted once, holds nothing while it is paused, and goes on", async () => {
      const { sandbox, guest } = await occupied();
      const moment = await guest.mark();
      await sandbox.pause();
      expect(await agent.traces()).toMatchObject(nothing);
      await sandbox.resume();
      expect(await guest.losses(moment)).toEqual([]);
      expect(await sandbox.describe()).toMatchObject({ memoryBackend: memory });
    });

    it("is forked and kept as a snapshot while it runs, and none of them sees what the others write", async () => {
      const { sandbox, guest } = await occupied();
      const moment = await guest.mark();
      const copy = new TestSandbox(agent);
      await sandbox.fork([copy]);
      const snapshot = await sandbox.keep();
      await guest.mark();
      const third = await TestSandbox.copyOf(agent, snapshot);
      for (const each of [copy, third]) {
        expect(await known(each).losses(moment)).toEqual([]);
        await each.run("echo mine > /root/mark; sync");
        await each.destroy();
      }
      const later = await guest.mark();
      expect(await guest.losses(later)).toEqual([]);
      await forget(agent, snapshot);
    });

    it("keeps everything when the layers that many pauses have made are folded into one", async () => {
      const { sandbox, guest } = await occupied();
      let moment = await guest.mark();
      for (let round = 0; round < 9; round++) {
        await sandbox.pause();
        await sandbox.resume();
        moment = await guest.mark();
      }
      await sandbox.pause();
      const layersNow = async (): Promise<number | undefined> => {
        const { generationId } = await sandbox.describe();
        const manifest = await readManifest(agent.layout, parseUuid("generation", generationId));
        return manifest?.disk.layers.length;
      };
      await expect.poll(layersNow, { timeout: 120_000 }).toBe(1);
      await sandbox.resume();
      expect(await guest.losses(moment)).toEqual([]);
    });

    it("that dies gives everything back, and starts again from its disk or from its last pause", async () => {
      const { sandbox, guest } = await occupied();
      const moment = await guest.mark();
      await sandbox.pause();
      await sandbox.resume();
      await sandbox.run("echo later > /root/later; sync");
      await sandbox.loseVm();
      await expect.poll(() => agent.traces()).toMatchObject(nothing);
      await sandbox.recover(RecoverySource.DISK);
      expect(await sandbox.run("cat /root/later /root/mark; ls /dev/shm")).toBe(`later\n${moment.mark}\n`);
      await sandbox.loseVm();
      await sandbox.recover(RecoverySource.LAST_PAUSE);
      expect(await guest.losses(moment)).toEqual([]);
      expect(await sandbox.run("ls /root")).not.toContain("later");
    });

    it("runs on when the host agent is killed, and can then do all that it could before", async () => {
      const { sandbox, guest } = await occupied();
      const moment = await guest.mark();
      await agent.restart();
      expect((await sandbox.describe()).state).toBe(SandboxState.RUNNING);
      expect(await guest.losses(moment)).toEqual([]);
      const copy = new TestSandbox(agent);
      await sandbox.fork([copy]);
      expect(await known(copy).losses(moment)).toEqual([]);
      await sandbox.pause();
      await sandbox.resume();
      expect(await guest.losses(moment)).toEqual([]);
    });

    it("leaves nothing of any kind once it is destroyed, whatever it is doing", async () => {
      const { sandbox } = await occupied();
      const copies = [new TestSandbox(agent), new TestSandbox(agent)];
      await sandbox.fork(copies);
      const [paused = sandbox, pausing = sandbox] = copies;
      await paused.pause();
      const attempt = pausing.pause().catch(() => undefined);
      for (const each of [sandbox, ...copies]) await each.destroy();
      await attempt;
      await expect.poll(() => agent.traces()).toMatchObject({ ...nothing, directories: [] });
    });

    it("that ends while no host agent is there, or is half-made then, leaves nothing but its own disk", async () => {
      const { sandbox, guest } = await occupied();
      const moment = await guest.mark();
      const engine = await sandbox.engine();
      const half = new TestSandbox(agent);
      const making = half.create().catch(() => undefined);
      await agent.signal("SIGKILL");
      await making;
      process.kill(engine.pid, "SIGKILL");
      await agent.start();
      expect((await sandbox.describe()).state).toBe(SandboxState.DEAD);
      await expect.poll(() => agent.traces()).toMatchObject({ ...nothing, directories: [sandbox.id] });
      await sandbox.recover(RecoverySource.DISK);
      expect(await sandbox.run("cat /root/mark")).toBe(`${moment.mark}\n`);
    });
  });
}
