/** Folding a real chain of disks, as a queue does it in the background. */
import { chmod, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { generationLimits, newId } from "@wrenn/contract";
import { createLog, run } from "@wrenn/system";
import { expect, it, onTestFinished } from "vitest";
import type { DiskChain } from "../disks/disks.ts";
import { Qcow2Disks } from "../disks/qcow2/qcow2-disks.ts";
import { FoldQueue } from "./fold.ts";
import type { GenerationManifest } from "./manifest.ts";
import { standInPager, TestStates } from "./testing/states.ts";

const diskMib = 16;
const mebibyte = 1_048_576;

it("a chain of disks that is too long becomes one with the same content", async () => {
  const states = await TestStates.make();
  onTestFinished(() => states.remove());
  const { layout, generations } = states;
  const disks = new Qcow2Disks(layout);
  let top: GenerationManifest | null = null;
  for (let index = 0; index <= generationLimits.layers; index += 1) {
    const draft = await generations.begin();
    const content = await states.fill(draft, top);
    if (top === null) await writeFile(content.disk.rootfs, Buffer.alloc(diskMib * mebibyte, "r"));
    await chmod(content.disk.rootfs, 0o644);
    await makeDisk(content.disk, index);
    top = await draft.publish({ ...content, diskMib });
    draft.release();
  }
  if (top === null) throw new Error("There are some.");
  const before = await contentOf(top);
  const folds = new FoldQueue({
    generations,
    pager: standInPager(layout),
    flattenDisk: (_format, options, signal) => disks.flatten(options, signal),
    log: createLog({ level: "silent" }),
  });
  folds.add(top.id);
  await folds.idle();
  const folded = await generations.read(top.id);
  expect(folded.disk.layers).toHaveLength(1);
  expect((await contentOf(folded)).equals(before)).toBe(true);
  expect(before.subarray(mebibyte, mebibyte + 3).toString("hex")).toBe("010101");

  /** A layer over the one before, in which a megabyte of its own is written. */
  async function makeDisk({ layers: [layer, ...layers], rootfs }: DiskChain, index: number): Promise<void> {
    if (layer === undefined) throw new Error("It has a layer.");
    const file = layout.layer(layer).disk("qcow2");
    await rm(file);
    const below = { layers, rootfs };
    await disks.createOverlay({ sandboxId: newId("sandbox"), file, below, sizeMib: diskMib, uid: 0 });
    await run("qemu-io", ["-f", "qcow2", "-c", `write -P ${index} ${index}M 1M`, file]);
    await disks.sealTop({ layers: [layer, ...layers], rootfs });
  }

  async function contentOf({ disk }: GenerationManifest): Promise<Buffer> {
    const [layer] = disk.layers;
    if (layer === undefined) throw new Error("It has a disk.");
    const raw = path.join(layout.root, "raw");
    await run("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", layout.layer(layer).disk("qcow2"), raw]);
    return readFile(raw);
  }
});
