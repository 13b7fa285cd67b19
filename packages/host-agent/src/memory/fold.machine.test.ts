/** Folding a real chain of disks, as a queue does it in the background. */
import { chmod, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { generationLimits, type LayerId } from "@wrenn/contract";
import { createLog, run } from "@wrenn/system";
import { expect, it, onTestFinished } from "vitest";
import { createOverlay, flattenDisk, sealDiskLayer } from "../disks/qcow2.ts";
import type { Backing } from "../disks/qcow2-header.ts";
import { FoldQueue } from "./fold.ts";
import type { GenerationManifest } from "./manifest.ts";
import { standInPager, TestStates } from "./testing/states.ts";

const diskMib = 16;
const mebibyte = 1_048_576;

it("a chain of disks that is too long becomes one with the same content", async () => {
  const states = await TestStates.make();
  onTestFinished(() => states.remove());
  const { layout, generations } = states;
  let top: GenerationManifest | null = null;
  for (let index = 0; index <= generationLimits.layers; index += 1) {
    const draft = await generations.begin();
    const content = await states.fill(draft, top);
    if (top === null) await writeFile(content.disk.rootfs, Buffer.alloc(diskMib * mebibyte, "r"));
    await chmod(content.disk.rootfs, 0o644);
    await makeDisk(draft.diskLayer, top, content.disk.rootfs, index);
    top = await draft.publish(content);
    draft.release();
  }
  if (top === null) throw new Error("There are some.");
  const before = await contentOf(top);
  const folds = new FoldQueue({
    generations,
    pager: standInPager(layout),
    flattenDisk,
    log: createLog({ level: "silent" }),
  });
  folds.add(top.id);
  await folds.idle();
  const folded = await generations.read(top.id);
  expect(folded.disk.layers).toHaveLength(1);
  expect((await contentOf(folded)).equals(before)).toBe(true);
  expect(before.subarray(mebibyte, mebibyte + 3).toString("hex")).toBe("010101");

  /** A layer over the one before, in which a megabyte of its own is written. */
  async function makeDisk(
    layer: LayerId,
    below: GenerationManifest | null,
    rootfs: string,
    index: number,
  ): Promise<void> {
    const files = layout.layer(layer);
    const [under] = below?.disk.layers ?? [];
    const backing: Backing =
      under === undefined ? { path: rootfs, format: "raw" } : { path: layout.layer(under).disk, format: "qcow2" };
    await rm(files.disk);
    await createOverlay({ file: files.disk, backing, sizeMib: diskMib, uid: 0 });
    await run("qemu-io", ["-f", "qcow2", "-c", `write -P ${index} ${index}M 1M`, files.disk]);
    await sealDiskLayer(files, backing);
  }

  async function contentOf({ disk }: GenerationManifest): Promise<Buffer> {
    const [layer] = disk.layers;
    if (layer === undefined) throw new Error("It has a disk.");
    const raw = path.join(layout.root, "raw");
    await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", layout.layer(layer).disk, raw]);
    return readFile(raw);
  }
});
