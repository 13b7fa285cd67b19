import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { newId } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { GarbageCollector } from "./collect.ts";
import { GoldenRecords } from "./golden.ts";
import { layersOf } from "./manifest.ts";
import { collectRoots, type JournalRoots, type Roots } from "./roots.ts";
import { TestStates } from "./testing/states.ts";

const log = createLog({ level: "silent" });

let states: TestStates;
let journals: JournalRoots[];
let collector: GarbageCollector;

beforeEach(async () => {
  states = await TestStates.make();
  journals = [];
  collector = new GarbageCollector(states.generations, log);
});
afterEach(async () => {
  await states.remove();
});

const findRoots = (): Promise<Roots> => collectRoots(states.layout, journals);
const sweepAtOnce = (): ReturnType<GarbageCollector["sweep"]> => collector.sweep(findRoots, { atOnce: true });

describe("garbage collection", () => {
  it("keeps what journals, templates and golden records name, with every layer that it needs", async () => {
    const base = await states.publish();
    const paused = await states.publish(base);
    const snapshot = await states.publish();
    const golden = await states.publish();
    journals.push({ generations: [paused.id], layers: [] });
    await states.keepAsTemplate(snapshot.id);
    const shape = { rootfs: "/r", kernel: "/k", initramfs: "/i", vcpus: 1, memoryMib: 512, diskMib: 5_120 };
    const frozen = { ...shape, machine: golden.machine, diskFormat: golden.disk.format };
    await new GoldenRecords(states.layout, 0).record(frozen, golden.id);
    const expected = await states.expected([paused.id, snapshot.id, golden.id]);

    expect(await sweepAtOnce()).toMatchObject({ generations: 1, layers: 0 });
    expect(await states.present()).toEqual(expected);
    for (const { id } of [paused, snapshot, golden]) expect(await states.flaws(id)).toEqual([]);
  });

  it("keeps the disk under a running sandbox's overlay, when its generation has been folded or is no more", async () => {
    const generation = await states.publish(await states.publish());
    journals.push({ generations: [], layers: generation.disk.layers });
    await sweepAtOnce();
    expect(await states.present()).toEqual(generation.disk.layers.toSorted());
  });

  it("removes all of it once nothing names it, and says how much that was", async () => {
    const template = await states.keepAsTemplate((await states.publish(await states.publish(null, 100_000))).id);
    await sweepAtOnce();
    await states.removeTemplate(template);
    const swept = await sweepAtOnce();
    expect(swept).toMatchObject({ generations: 1, layers: 4 });
    expect(swept.bytes).toBeGreaterThan(100_000);
    expect(await states.present()).toEqual([]);
  });

  it("removes only what was garbage at two looks in a row", async () => {
    const generation = await states.publish();
    const before = await states.present();
    await collector.sweep(findRoots);
    expect(await states.present()).toEqual(before);
    journals.push({ generations: [generation.id], layers: [] });
    await collector.sweep(findRoots);
    journals.length = 0;
    await collector.sweep(findRoots);
    expect(await states.present()).toEqual(before);
    await collector.sweep(findRoots);
    expect(await states.present()).toEqual([]);
  });

  it("removes what was half made by a process that is no more", async () => {
    const kept = await states.publish();
    await states.keepAsTemplate(kept.id);
    await states.generations.begin();
    await states.fill(await states.generations.begin(), kept);
    const published = await states.generations.begin();
    await published.publish(await states.fill(published, kept));
    await writeFile(states.layout.generation(kept.id).header("memory-old.header"), "folded, or never in use");
    await writeFile(`${states.layout.generation(kept.id).manifest}.123.tmp`, "{");

    await states.restart();
    collector = new GarbageCollector(states.generations, log);
    await sweepAtOnce();
    expect(await states.present()).toEqual(await states.expected([kept.id]));
    expect(await states.strays()).toEqual([]);
    expect(await states.flaws(kept.id)).toEqual([]);
  });

  it("leaves a draft alone at every stage, until it is released", async () => {
    const draft = await states.generations.begin();
    await sweepAtOnce();
    const content = await states.fill(draft, null);
    await sweepAtOnce();
    await draft.publish(content);
    await sweepAtOnce();
    expect(await states.flaws(draft.id)).toEqual([]);
    draft.release();
    await sweepAtOnce();
    expect(await states.present()).toEqual([]);
  });

  it("leaves alone what a draft that has no root yet inherits", async () => {
    const draft = await states.generations.begin();
    const manifest = await draft.publish(await states.fill(draft, await states.publish()));
    await sweepAtOnce();
    expect(await states.flaws(manifest.id)).toEqual([]);
  });

  it("leaves alone what is made while it looks, and what comes into use while it removes", async () => {
    const used = await states.publish();
    let during: string | undefined;
    let release: (() => void) | undefined;
    await collector.sweep(
      async () => {
        during = (await states.publish()).id;
        const roots = await findRoots();
        release = states.generations.pins.hold([used.id, ...layersOf(used)]);
        return roots;
      },
      { atOnce: true },
    );
    release?.();
    expect(await states.present()).toContain(during);
    expect(await states.flaws(used.id)).toEqual([]);
  });

  it("leaves alone what got its root right after roots were looked for", async () => {
    const draft = await states.generations.begin();
    await draft.publish(await states.fill(draft, null));
    await collector.sweep(
      async () => {
        const roots = await findRoots();
        await states.keepAsTemplate(draft.id);
        draft.release();
        return roots;
      },
      { atOnce: true },
    );
    expect(await states.flaws(draft.id)).toEqual([]);
  });

  it("removes no layer while a manifest that is needed cannot be read", async () => {
    const damaged = await states.publish();
    const garbage = await states.publish();
    journals.push({ generations: [damaged.id], layers: [] });
    await writeFile(states.layout.generation(damaged.id).manifest, "{");
    await sweepAtOnce();
    expect(await states.present()).toEqual([damaged.id, ...layersOf(damaged), ...layersOf(garbage)].toSorted());
    journals.length = 0;
    await sweepAtOnce();
    expect(await states.present()).toEqual([]);
  });

  it("removes nothing while a template cannot be read", async () => {
    const template = await states.keepAsTemplate((await states.publish()).id);
    await writeFile(states.layout.template(states.team, template).manifest, "{}");
    const before = await states.present();
    await expect(sweepAtOnce()).rejects.toMatchObject({ code: "snapshot_damaged" });
    expect(await states.present()).toEqual(before);
  });

  it("leaves alone what is not its own", async () => {
    const foreign = path.join(states.layout.layers, "lost+found");
    await mkdir(foreign);
    await sweepAtOnce();
    expect(await states.present()).toEqual(["lost+found"]);
  });

  it("needs no directory to be there", async () => {
    await rm(states.layout.generations, { recursive: true });
    expect(await sweepAtOnce()).toEqual({ generations: 0, layers: 0, bytes: 0 });
    journals.push({ generations: [newId("generation")], layers: [newId("layer")] });
    expect(await sweepAtOnce()).toEqual({ generations: 0, layers: 0, bytes: 0 });
  });
});
