import { createHash } from "node:crypto";
import { stat, utimes, writeFile } from "node:fs/promises";
import { createLog } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GarbageCollector } from "./collect.ts";
import { GoldenRecords } from "./golden.ts";
import { type GoldenShape, readGoldenRecords } from "./golden-record.ts";
import type { GenerationManifest } from "./manifest.ts";
import { collectRoots, type JournalRoots } from "./roots.ts";
import { testMachine, TestStates } from "./testing/states.ts";

const mebibyte = 1_048_576;

let states: TestStates;

beforeEach(async () => {
  states = await TestStates.make();
});
afterEach(async () => {
  await states.remove();
});

function shape(memoryMib: number): GoldenShape {
  const boot = { rootfs: "/rootfs-01.ext4", kernel: "/boot/01/kernel", initramfs: "/boot/01/initramfs" };
  return { ...boot, vcpus: 1, memoryMib, diskMib: 5_120, machine: testMachine, diskFormat: "qcow2" };
}

/** A golden snapshot of a shape of its own, used at this time. */
async function makeGolden(golden: GoldenRecords, memoryMib: number, usedAt: number): Promise<GenerationManifest> {
  const manifest = await states.publish(null, mebibyte);
  const key = await golden.record(shape(memoryMib), manifest.id);
  await utimes(states.layout.goldenRecord(key), usedAt, usedAt);
  return manifest;
}

async function sweep(journals: readonly JournalRoots[] = []): Promise<void> {
  const collector = new GarbageCollector(states.generations, createLog({ level: "silent" }));
  await collector.sweep(() => collectRoots(states.layout, journals), { atOnce: true });
}

describe("golden snapshots", () => {
  it("are found by their shape, and by nothing that differs in any part of it", async () => {
    const golden = new GoldenRecords(states.layout, mebibyte);
    const { id } = await makeGolden(golden, 512, 1);
    const { machine, ...rest } = shape(512);
    expect((await golden.find({ machine, ...rest }))?.generation).toBe(id);
    const others: GoldenShape[] = [
      ...(["rootfs", "kernel", "initramfs"] as const).map((part) => ({ ...shape(512), [part]: "/another" })),
      ...(["vcpus", "memoryMib", "diskMib"] as const).map((part) => ({ ...shape(512), [part]: 7 })),
      ...(["version", "cpu", "machine"] as const).map((part) => ({
        ...shape(512),
        machine: { ...testMachine, [part]: "another" },
      })),
      { ...shape(512), diskFormat: "dm-snapshot" },
    ];
    for (const other of others) expect(await golden.find(other)).toBeNull();
  });

  it("of qcow2 are found under the name they had when there was nothing else", async () => {
    const { diskFormat, ...older } = shape(512);
    expect(diskFormat).toBe("qcow2");
    const name = createHash("sha256").update(JSON.stringify(older)).digest("hex");
    const { id } = await states.publish(null, mebibyte);
    await writeFile(states.layout.goldenRecord(name), JSON.stringify({ version: 1, shape: older, generation: id }));
    expect(await new GoldenRecords(states.layout, mebibyte).find(shape(512))).toMatchObject({ generation: id });
  });

  it("go, least recently used first, until what only they need fits into the budget", async () => {
    const golden = new GoldenRecords(states.layout, 2.5 * mebibyte);
    const oldest = await makeGolden(golden, 128, 1);
    const used = await makeGolden(golden, 256, 2);
    const newer = await makeGolden(golden, 512, 3);
    const record = await golden.find(shape(128));
    await golden.touch(record?.key ?? "");
    expect((await golden.evict([])).map(({ generation }) => generation)).toEqual([used.id]);
    expect(await golden.evict([])).toEqual([]);
    await sweep();
    expect(await states.present()).toEqual(await states.expected([oldest.id, newer.id]));
  });

  it("are not charged for what sandboxes and snapshots keep anyway", async () => {
    const golden = new GoldenRecords(states.layout, 1.5 * mebibyte);
    const running = await makeGolden(golden, 128, 1);
    const parent = await makeGolden(golden, 256, 2);
    await states.keepAsTemplate((await states.publish(parent)).id);
    await makeGolden(golden, 512, 3);
    const journals = [{ generations: [running.id], layers: [] }];
    expect(await golden.evict(journals)).toEqual([]);
    expect((await golden.evict([])).map(({ generation }) => generation)).toEqual([running.id]);
  });

  it("may be too large alone, and are kept until another is used", async () => {
    const golden = new GoldenRecords(states.layout, 100);
    await makeGolden(golden, 128, 1);
    expect(await golden.evict([])).toEqual([]);
    await makeGolden(golden, 256, 2);
    expect((await golden.evict([])).map(({ shape }) => shape.memoryMib)).toEqual([128]);
  });

  it("go when their shape can come up no more", async () => {
    const golden = new GoldenRecords(states.layout, mebibyte);
    const stale = await makeGolden(golden, 128, 1);
    const current = await makeGolden(golden, 512, 1);
    expect(
      (await golden.dropStale(async ({ memoryMib }) => memoryMib === 512)).map(({ generation }) => generation),
    ).toEqual([stale.id]);
    await sweep();
    expect(await states.present()).toEqual(await states.expected([current.id]));
  });

  it("are none when the record is cut, foreign or under another shape's name", async () => {
    const golden = new GoldenRecords(states.layout, mebibyte);
    const { id } = await makeGolden(golden, 128, 1);
    const [record] = await readGoldenRecords(states.layout);
    const file = states.layout.goldenRecord(record?.key ?? "");
    for (const content of ["", "{}", JSON.stringify({ version: 1, shape: shape(256), generation: id })]) {
      await writeFile(file, content);
      expect(await golden.find(shape(128))).toBeNull();
    }
    await sweep();
    expect(await states.present()).toEqual([]);
  });

  it("are forgotten and used at the same time without harm", async () => {
    const golden = new GoldenRecords(states.layout, mebibyte);
    await makeGolden(golden, 128, 1);
    const key = (await golden.find(shape(128)))?.key ?? "";
    await golden.forget(key);
    await golden.touch(key);
    await golden.forget(key);
    await expect(stat(states.layout.goldenRecord(key))).rejects.toMatchObject({ code: "ENOENT" });
  });
});
