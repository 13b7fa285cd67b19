/** Disks that are written full, hosts' disks that are full below them, and what folding writes. */
import { open, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import { newId } from "@wrenn/contract";
import { run } from "@wrenn/system";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { cowFileBytes, encodeHeader, readState } from "./cow-file.ts";
import { detectDmSnapshot } from "./detect.ts";
import { createDevice, devicePath, removeDevice } from "./device-mapper.ts";
import { attachLoop, clearWhenUnused } from "./loop-devices.ts";
import { snapshotTable } from "./tables.ts";
import {
  chunk,
  DiskStand,
  mebibyte,
  missingFrom,
  noise,
  original,
  uid,
  type Write,
  writeTo,
} from "./testing/disk-stand.ts";

const { usable, reason } = await detectDmSnapshot();

describe.skipIf(!usable)(`without room${usable ? "" : ` (${reason})`}`, () => {
  let stand: DiskStand;
  let mounted: string | null = null;

  beforeEach(async () => {
    stand = await DiskStand.open({ sizeMib: 64 });
  });

  afterEach(async () => {
    await stand.remove();
    if (mounted !== null) await run("umount", [mounted]);
    mounted = null;
  });

  /** Writes every chunk of a disk, in this order, over a file of this length. What the kernel has made of the file. */
  async function writtenFull(order: readonly number[], fileBytes: number): ReturnType<typeof readState> {
    const file = path.join(stand.layout.root, "full.cow");
    const origin = path.join(stand.layout.root, "full.raw");
    for (const [each, bytes] of [
      [file, fileBytes],
      [origin, order.length * chunk],
    ] as const) {
      const handle = await open(each, "w");
      if (each === file) await handle.write(encodeHeader(), 0, undefined, 0);
      await handle.truncate(bytes);
      await handle.close();
    }
    const loops = [await attachLoop(origin, "read-only"), await attachLoop(file, "read-write")];
    const name = `wrenn-test-${newId("layer")}`;
    const table = snapshotTable((order.length * chunk) / 512, `/dev/${loops[0] ?? ""}`, `/dev/${loops[1] ?? ""}`);
    await createDevice({ name, table, uid });
    await clearWhenUnused(loops);
    try {
      // Only what was made last comes before what is written next.
      const groups = [0, 1, 2, 3].map((group) =>
        order.slice((group * order.length) / 4, ((group + 1) * order.length) / 4),
      );
      for (const group of groups)
        await writeTo(
          devicePath(name),
          group.map((at) => ({ at, bytes: Buffer.alloc(chunk, 7) })),
        );
    } catch {
      // What the file says counts.
    }
    await removeDevice(name);
    const handle = await open(file, "r");
    try {
      return await readState(handle);
    } finally {
      await handle.close();
    }
  }

  it("for less than every chunk of a disk the kernel gives it up, and a file has room for them all", async () => {
    // Areas of 256: where one ends, the next is begun.
    for (const chunks of [1, 255, 256, 257]) {
      const order = Array.from({ length: chunks }, (_, index) => index);
      expect([chunks, await writtenFull(order, cowFileBytes(chunks * chunk))]).toEqual([chunks, "valid"]);
      expect([chunks, await writtenFull(order, cowFileBytes(chunks * chunk) - chunk)]).toEqual([chunks, "failed"]);
    }
    const disk = fc.integer({ min: 2, max: 300 });
    const order = disk.chain((chunks) => fc.shuffledSubarray([...Array(chunks).keys()], { minLength: chunks }));
    await fc.assert(
      fc.asyncProperty(order, async (chunks) => {
        expect(await writtenFull(chunks, cowFileBytes(chunks.length * chunk))).toBe("valid");
      }),
      { numRuns: 3 },
    );
  }, 600_000);

  it("on the host, a disk refuses to be frozen, and with room again has all that it was asked to make last", async () => {
    mounted = `${stand.layout.root}-full`;
    await run("truncate", ["-s", "40M", `${mounted}.img`]);
    await run("mkfs.ext4", ["-q", "-m", "0", `${mounted}.img`]);
    await run("mkdir", [mounted]);
    await run("mount", ["-o", "loop", `${mounted}.img`, mounted]);
    const ballast = path.join(mounted, "ballast");
    await run("fallocate", ["-l", "14M", ballast]);
    const full = await DiskStand.open({ sizeMib: 64 }, mounted);
    try {
      const disk = await full.attached(await full.layer(full.bare, [noise(1)]));
      const kept: Write[] = [noise(2), noise(900, 64), noise(2)];
      await writeTo(disk.device, kept);
      await expect(writeTo(disk.device, [noise(2_000, 12_000)])).rejects.toMatchObject(writeError);
      await expect(full.disks.keepAsLayer(disk, newId("layer"))).rejects.toMatchObject({ code: "disk_failed" });
      await expect(missingFrom(disk.device, kept.slice(1))).rejects.toMatchObject({ code: "EIO" });
      await full.disks.detach(disk.sandboxId);
      const again = await full.disks.attach(disk);
      expect(await missingFrom(again.path, kept.slice(1))).toEqual([]);
      // Still no room for more.
      await expect(writeTo(again.path, [noise(12_000, 3_000)])).rejects.toMatchObject(writeError);
      await full.disks.detach(disk.sandboxId);
      await rm(ballast);
      kept.push(noise(12_000, 3_000));
      const { path: device } = await full.disks.attach(disk);
      await writeTo(device, kept.slice(3));
      expect(await missingFrom(device, kept.slice(1))).toEqual([]);
      await full.frozen(disk);
    } finally {
      await full.remove();
    }
  }, 300_000);

  it("to spare, folding writes no more than what differs, and the disk is the same", async () => {
    const large = await DiskStand.open({ sizeMib: 5_120 });
    try {
      const [below, hidden, above] = [noise(1_000, 25_600), noise(60_000, 12_800), noise(60_000, 12_800)];
      const low = await large.layer(large.bare, [below, hidden]);
      const top = await large.layer(low, [above, { at: 100_000, bytes: Buffer.alloc(12_800 * chunk, 7) }]);
      const target = newId("layer");
      const written = await writtenBytes();
      await large.disks.flatten({ chain: top, sizeMib: large.sizeMib, target }, new AbortController().signal);
      expect((await writtenBytes()) - written).toBeLessThan(210 * mebibyte);
      const file = large.layout.layer(target).disk("dm-snapshot");
      const { blocks, mode, uid } = await stat(file);
      expect(blocks * 512).toBeLessThan(210 * mebibyte);
      expect([mode & 0o777, uid]).toEqual([0o440, 0]);
      const flat = { layers: [target], rootfs: large.rootfs };
      await large.disks.sealTop(flat);
      const disk = await large.attached(flat);
      const whole = [
        below,
        above,
        { at: 100_000, bytes: Buffer.alloc(12_800 * chunk, 7) },
        original(2),
        original(72_800),
      ];
      expect(await missingFrom(disk.device, whole)).toEqual([]);
      const deeper = await large.attached(await large.layer(flat, [noise(1_000)]));
      expect(await missingFrom(deeper.device, [above, original(2)])).toEqual([]);
    } finally {
      await large.remove();
    }
  }, 600_000);

  it("a fold refuses what is damaged, or not sealed", async () => {
    const chain = await stand.layer(stand.bare, [noise(1)]);
    const [top] = chain.layers;
    if (top === undefined) throw new Error("there is no layer");
    const fold = (): Promise<void> =>
      stand.disks.flatten({ chain, sizeMib: 64, target: newId("layer") }, new AbortController().signal);
    await fold();
    const file = stand.layout.layer(top).disk("dm-snapshot");
    const handle = await open(file, "r+");
    // The first exception, which leads out of the disk.
    await handle.write(Buffer.alloc(8, 0xff), 0, 8, chunk);
    await expect(fold()).rejects.toMatchObject({ code: "snapshot_damaged" });
    await handle.chmod(0o640);
    await handle.close();
    await expect(fold()).rejects.toMatchObject({ code: "snapshot_damaged" });
    await rm(file);
    await expect(fold()).rejects.toMatchObject({ code: "snapshot_damaged" });
  });
});

/** Which of the two depends on who notices first. */
const writeError = { code: expect.stringMatching(/^(EIO|ENOSPC)$/) as string };

/** What this process has handed to the kernel to be written (proc(5)). */
async function writtenBytes(): Promise<number> {
  return Number(/^wchar: (\d+)$/m.exec(await readFile("/proc/self/io", "utf8"))?.[1]);
}
