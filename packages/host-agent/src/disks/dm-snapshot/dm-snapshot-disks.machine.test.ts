/** Disks that device-mapper makes, as an engine sees them, and what there is of them on the host. */
import { open, rename, rm, stat } from "node:fs/promises";
import { newId } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { enginesGid } from "../../engines/users.ts";
import { detectDmSnapshot } from "./detect.ts";
import { DmSnapshotDisks } from "./dm-snapshot-disks.ts";
import { loadTable, suspendDevice } from "./device-mapper.ts";
import { attachLoop, clearWhenUnused } from "./loop-devices.ts";
import { loopDevices } from "./sysfs.ts";
import { chunk, DiskStand, mebibyte, missingFrom, noise, original, uid, writeTo } from "./testing/disk-stand.ts";

const { usable, reason } = await detectDmSnapshot();

describe.skipIf(!usable)(`a disk of device-mapper${usable ? "" : ` (${reason})`}`, () => {
  let stand: DiskStand;

  beforeEach(async () => {
    stand = await DiskStand.open({ sizeMib: 64 });
  });

  afterEach(async () => {
    await stand.remove();
  });

  it("is its root filesystem and what was written to it, and takes up no more than that", async () => {
    const disk = await stand.attached(stand.bare);
    const writes = [noise(3), noise(700, 100)];
    await writeTo(disk.device, writes);
    expect(await missingFrom(disk.device, [...writes, original(2), original(500)])).toEqual([]);
    expect((await stat(disk.file)).blocks * 512).toBeLessThan(120 * chunk);
    const other = await stand.attached(stand.bare);
    expect(await missingFrom(other.device, [original(3), original(700)])).toEqual([]);
  });

  it("can be opened by its engine's user alone, and its file by root alone", async () => {
    const disk = await stand.attached(stand.bare);
    const device = await stat(disk.device);
    expect([device.isBlockDevice(), device.uid, device.gid, device.mode & 0o777]).toEqual([true, uid, uid, 0o600]);
    const file = await stat(disk.file);
    expect([file.uid, file.mode & 0o777]).toEqual([0, 0o600]);
  });

  it("is attached anew for another user, with all that was written", async () => {
    const disk = await stand.attached(stand.bare);
    const writes = [noise(9)];
    await writeTo(disk.device, writes);
    const { path } = await stand.disks.attach({ ...disk, uid: uid + 1 });
    expect((await stat(path)).uid).toBe(uid + 1);
    expect(await missingFrom(path, writes)).toEqual([]);
    await stand.disks.detach(disk.sandboxId);
    expect(await stand.devices()).toEqual([]);
    await stand.disks.detach(disk.sandboxId);
  });

  it("is larger than its root filesystem, and full of zeros behind it", async () => {
    const wide = await DiskStand.open({ sizeMib: 16, rootfsBytes: 4 * mebibyte + 512 });
    try {
      const disk = await wide.attached(wide.bare);
      const writes = [noise(1_024), noise(4_095)];
      await writeTo(disk.device, writes);
      expect(await missingFrom(disk.device, [...writes, original(2), original(1_025), original(4_094)])).toEqual([]);
      const chain = await wide.frozen(disk);
      const again = await wide.attached(chain);
      expect(await missingFrom(again.device, [...writes, original(2), original(1_025)])).toEqual([]);
    } finally {
      await wide.remove();
    }
  });

  describe("over layers", () => {
    it("has what the topmost of them says, and is not seen by disks beside it", async () => {
      const [below, above, own, others] = [noise(5), noise(5), noise(5), noise(5)];
      const low = await stand.layer(stand.bare, [below, noise(40)]);
      const high = await stand.layer(low, [above, noise(41)]);
      const [one, two, three] = [await stand.attached(high), await stand.attached(high), await stand.attached(low)];
      await writeTo(one.device, [own]);
      await writeTo(three.device, [others]);
      expect(await missingFrom(one.device, [own])).toEqual([]);
      expect(await missingFrom(two.device, [above])).toEqual([]);
      expect(await missingFrom(three.device, [others])).toEqual([]);
      expect(await missingFrom((await stand.attached(low)).device, [below])).toEqual([]);
    });

    it("shares one device for each of them, made once for disks that come at once, and gone with the last", async () => {
      const low = await stand.layer(stand.bare, [noise(1)]);
      const high = await stand.layer(low, [noise(2)]);
      const disks = await Promise.all(Array.from({ length: 6 }, () => stand.attached(high)));
      const lone = await stand.attached(low);
      const shared = async (): Promise<number> =>
        (await stand.devices()).filter((name) => name.includes("-layer-") || name.includes("-base-")).length;
      expect(await shared()).toBe(3);
      await Promise.all(disks.slice(1).map(({ sandboxId }) => stand.disks.detach(sandboxId)));
      expect(await shared()).toBe(3);
      await Promise.all(disks.slice(0, 1).map(({ sandboxId }) => stand.disks.detach(sandboxId)));
      expect(await shared()).toBe(2);
      await stand.disks.detach(lone.sandboxId);
      expect(await stand.devices()).toEqual([]);
    });

    it("finds the devices that another process has made", async () => {
      const chain = await stand.layer(stand.bare, [noise(1)]);
      const disk = await stand.attached(chain);
      const before = await stand.devices();
      const successor = new DmSnapshotDisks(stand.layout);
      await successor.clear([disk.sandboxId]);
      expect(await stand.devices()).toEqual(before);
      await successor.detach(disk.sandboxId);
      expect(await stand.devices()).toEqual([]);
    });

    it("is refused over a file that is damaged, and over one that lies in a layer's place", async () => {
      const chain = await stand.layer(stand.bare, [noise(1)]);
      const [top] = chain.layers;
      if (top === undefined) throw new Error("there is no layer");
      const file = stand.layout.layer(top).disk("dm-snapshot");
      expect([(await stat(file)).gid, (await stat(file)).mode & 0o777]).toEqual([enginesGid, 0o440]);
      const handle = await open(file, "r+");
      await handle.write(Buffer.from([0]), 0, 1, 4);
      await handle.close();
      await expect(stand.disks.sealTop(chain)).rejects.toMatchObject({ code: "snapshot_damaged" });
      await rename(stand.rootfs, file);
      await expect(stand.disks.sealTop(chain)).rejects.toMatchObject({ code: "snapshot_damaged" });
    });
  });

  describe("whose overlay is switched", () => {
    it("stays open, and the layer keeps what was written before", async () => {
      const disk = await stand.attached(await stand.layer(stand.bare, [noise(1)]));
      const [early, late] = [noise(7), noise(7)];
      const handle = await open(disk.device, "r+");
      // Only in the kernel's cache yet.
      await handle.write(early.bytes, 0, chunk, 7 * chunk);
      const layer = newId("layer");
      await stand.disks.keepAsLayer(disk, layer);
      const next = stand.next(disk, layer);
      await stand.disks.createOverlay(next);
      await handle.write(noise(8).bytes, 0, chunk, 8 * chunk);
      await stand.disks.switchOverlay({}, next);
      expect(await stand.disks.finishSwitch(disk, next.file)).toBe(true);
      await stand.disks.sealTop(next.below);
      await rm(disk.file);
      expect((await loopDevices()).filter(({ file }) => file.startsWith(disk.file))).toEqual([]);
      expect((await handle.read(Buffer.alloc(chunk), 0, chunk, 7 * chunk)).buffer).toEqual(early.bytes);
      await handle.write(late.bytes, 0, chunk, 7 * chunk);
      await handle.sync();
      await handle.close();
      const copy = await stand.attached(next.below);
      expect(await missingFrom(copy.device, [early])).toEqual([]);
      expect(await missingFrom(disk.device, [late])).toEqual([]);
    });

    it("goes on with the one that it had when the switch was cut short before it counted", async () => {
      const disk = await stand.attached(stand.bare);
      const layer = newId("layer");
      await stand.disks.keepAsLayer(disk, layer);
      const next = stand.next(disk, layer);
      await stand.disks.createOverlay(next);
      const loop = await attachLoop(next.file, "read-write");
      const name = disk.device.replace("/dev/mapper/", "");
      await suspendDevice(name);
      await loadTable(
        name,
        `0 ${stand.sizeMib * 2_048} snapshot ${(await stand.attached(stand.bare)).device} /dev/${loop} P 8`,
      );
      expect(await stand.disks.finishSwitch(disk, next.file)).toBe(false);
      const writes = [noise(4)];
      await writeTo(disk.device, writes);
      await stand.disks.detach(disk.sandboxId);
      expect(await missingFrom((await stand.disks.attach(disk)).path, writes)).toEqual([]);
    });
  });

  describe("that something holds", () => {
    it("is waited for when it is detached", async () => {
      const disk = await stand.attached(stand.bare);
      const handle = await open(disk.device, "r");
      const detached = stand.disks.detach(disk.sandboxId);
      await stand.disks.attach(await overlay());
      await handle.close();
      await detached;
      expect((await stand.devices()).filter((name) => name.includes(disk.sandboxId))).toEqual([]);
    });

    it("is named when it is not let go of, and can be detached later", async () => {
      const disk = await stand.attached(stand.bare);
      const handle = await open(disk.device, "r");
      await expect(stand.disks.detach(disk.sandboxId)).rejects.toMatchObject({
        code: "disk_setup_failed",
        message: expect.stringContaining("Device or resource busy") as string,
      });
      await handle.close();
      await stand.disks.detach(disk.sandboxId);
      expect(await stand.devices()).toEqual([]);
    });

    async function overlay(): ReturnType<DiskStand["disk"]> {
      const disk = await stand.disk(stand.bare);
      await stand.disks.createOverlay(disk);
      return disk;
    }
  });

  it("cannot be had without loop devices, and says so", async () => {
    const disk = await stand.disk(stand.bare);
    await stand.disks.createOverlay(disk);
    const taken: string[] = [];
    // Without it, those that there are cannot become more.
    await rename("/dev/loop-control", "/dev/loop-control.away");
    try {
      while ((await run("losetup", ["--find"]).catch(() => null)) !== null) {
        taken.push(await attachLoop(stand.rootfs, "read-only"));
      }
      await expect(stand.disks.attach(disk)).rejects.toMatchObject({ code: "loop_devices_exhausted" });
    } finally {
      await rename("/dev/loop-control.away", "/dev/loop-control");
      await clearWhenUnused(taken);
    }
    await stand.disks.attach(disk);
  });

  it("of another Wrenn on the host is left alone", async () => {
    const other = await DiskStand.open({ sizeMib: 64 });
    try {
      const disk = await other.attached(await other.layer(other.bare, [noise(1)]));
      const before = await other.devices();
      await stand.disks.clear([]);
      expect(await other.devices()).toEqual(before);
      expect(await missingFrom(disk.device, [original(3)])).toEqual([]);
    } finally {
      await other.remove();
    }
  });
});
