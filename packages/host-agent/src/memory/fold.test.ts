import { mkdir, writeFile } from "node:fs/promises";
import { type DiskFormat, generationLimits } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FlattenOptions } from "../disks/disks.ts";
import { deferred } from "../deferred.ts";
import { GarbageCollector } from "./collect.ts";
import { type FoldContext, FoldQueue } from "./fold.ts";
import type { GenerationManifest } from "./manifest.ts";
import { collectRoots } from "./roots.ts";
import { standInPager, TestStates } from "./testing/states.ts";

const log = createLog({ level: "silent" });

let states: TestStates;

beforeEach(async () => {
  states = await TestStates.make();
});
afterEach(async () => {
  await states.remove();
});

function queue(overrides: Partial<FoldContext> = {}): FoldQueue {
  const { generations, layout } = states;
  return new FoldQueue({ generations, pager: standInPager(layout), flattenDisk, log, ...overrides });
}

/** Writes what marks the layer, as the pager's stand-in does. */
async function flattenDisk(format: DiskFormat, { target }: FlattenOptions): Promise<void> {
  const files = states.layout.layer(target);
  await mkdir(files.directory);
  await writeFile(files.disk(format), target);
}

async function publishChain(length: number): Promise<GenerationManifest> {
  let top = await states.publish();
  for (let index = 1; index < length; index += 1) top = await states.publish(top);
  await states.keepAsTemplate(top.id);
  return top;
}

async function sweep(): Promise<void> {
  const collector = new GarbageCollector(states.generations, log);
  await collector.sweep(() => collectRoots(states.layout, []), { atOnce: true });
}

describe("folding", () => {
  it("makes one layer of memory and one of the disk of what has too many, and the old ones become garbage", async () => {
    const top = await publishChain(generationLimits.layers + 1);
    const folds = queue();
    folds.add(top.id);
    await folds.idle();
    const folded = await states.generations.read(top.id);
    expect(folded.memory).toMatchObject({ flat: true, layers: [expect.any(String)] });
    expect(folded.disk).toMatchObject({ layers: [expect.any(String)], rootfs: top.disk.rootfs });
    expect({ ...folded, memory: null, disk: null }).toEqual({ ...top, memory: null, disk: null });
    await sweep();
    expect(await states.present()).toEqual(await states.expected([top.id]));
    expect(await states.strays()).toEqual([]);
    expect(await states.flaws(top.id)).toEqual([]);
  });

  it("leaves alone what is within the limits, but makes flat what is started often", async () => {
    const top = await publishChain(generationLimits.layers);
    const folds = queue();
    folds.add(top.id);
    await folds.idle();
    expect(await states.generations.read(top.id)).toEqual(top);
    folds.add(top.id);
    folds.add(top.id, { flat: true });
    folds.add(top.id);
    await folds.idle();
    const folded = await states.generations.read(top.id);
    expect(folded.memory.flat).toBe(true);
    expect(folded.disk).toEqual(top.disk);
  });

  it("folds memory in too many pieces", async () => {
    const draft = await states.generations.begin();
    const content = await states.fill(draft, await states.publish());
    await draft.publish({ ...content, memory: { ...content.memory, extents: generationLimits.extents + 1 } });
    const folds = queue();
    folds.add(draft.id);
    await folds.idle();
    expect((await states.generations.read(draft.id)).memory.flat).toBe(true);
  });

  it("takes nothing away from who uses the generation at the time", async () => {
    const top = await publishChain(generationLimits.layers + 1);
    const folds = queue();
    await states.generations.using(top.id, async (manifest) => {
      folds.add(top.id);
      await folds.idle();
      await sweep();
      expect(await states.present()).toEqual(
        expect.arrayContaining([...manifest.memory.layers, ...manifest.disk.layers]),
      );
      expect(await states.strays()).toEqual([manifest.memory.header]);
    });
    await sweep();
    expect(await states.present()).toEqual(await states.expected([top.id]));
  });

  it("is safe from a sweep while it runs, also when the generation is removed meanwhile", async () => {
    const top = await publishChain(generationLimits.layers + 1);
    const pager = standInPager(states.layout);
    const folds = queue({
      pager: {
        fold: async (request, signal) => {
          const result = await pager.fold(request, signal);
          const collector = new GarbageCollector(states.generations, log);
          const nothing = { generations: new Set<never>(), layers: new Set<never>() };
          await collector.sweep(async () => nothing, { atOnce: true });
          return result;
        },
      },
    });
    folds.add(top.id);
    await folds.idle();
    expect(await states.flaws(top.id)).toEqual([]);
    expect((await states.generations.read(top.id)).memory.flat).toBe(true);
  });

  it("that fails leaves the generation as it was, takes nothing from the disk, and does not stop the next", async () => {
    const [failing, next] = [await publishChain(generationLimits.layers + 1), await publishChain(9)];
    const before = await states.present();
    let attempts = 0;
    const folds = queue({
      flattenDisk: async (format, options) => {
        await flattenDisk(format, options);
        attempts += 1;
        if (attempts === 1) throw new Error("failed");
      },
    });
    folds.add(failing.id);
    await folds.idle();
    expect(await states.present()).toEqual(before);
    expect(await states.generations.read(failing.id)).toEqual(failing);
    folds.add(failing.id);
    folds.add(next.id);
    await folds.idle();
    expect((await states.generations.read(failing.id)).memory.flat).toBe(true);
    expect((await states.generations.read(next.id)).memory.flat).toBe(true);
  });

  it("ends with the host agent, and takes no more", async () => {
    const top = await publishChain(generationLimits.layers + 1);
    const before = await states.present();
    const begun = deferred<void>();
    const folds = queue({
      pager: {
        fold: async (request, signal) => {
          await standInPager(states.layout).fold(request, signal);
          begun.resolve();
          return new Promise((_resolve, reject) => {
            signal.addEventListener("abort", () => reject(new Error("ended")));
          });
        },
      },
    });
    folds.add(top.id);
    await begun.promise;
    await folds.close();
    folds.add(top.id);
    await folds.idle();
    expect(await states.present()).toEqual(before);
    expect(await states.generations.read(top.id)).toEqual(top);
  });
});
