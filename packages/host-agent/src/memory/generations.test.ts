import { link, readdir, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Generations } from "./generations.ts";
import { layersOf } from "./manifest.ts";
import { TestStates, testMachine } from "./testing/states.ts";

let states: TestStates;

beforeEach(async () => {
  states = await TestStates.make();
});
afterEach(async () => {
  await states.remove();
});

describe("a generation", () => {
  it("is not there before its manifest, and whole with it", async () => {
    const draft = await states.generations.begin();
    const content = await states.fill(draft, null);
    await expect(states.generations.read(draft.id)).rejects.toMatchObject({ code: "snapshot_damaged" });
    const manifest = await draft.publish(content);
    expect(await states.generations.read(draft.id)).toEqual(manifest);
    expect(await states.flaws(draft.id)).toEqual([]);
    await states.generations.assertRestorable(manifest, testMachine);
  });

  it("says what it takes on the disk beyond its parent, in blocks used", async () => {
    const parent = await states.publish(null, 1_048_576);
    const child = await states.publish(parent, 10);
    expect(parent.newBytes).toBeGreaterThanOrEqual(1_048_576);
    expect(child.newBytes).toBeLessThan(65_536);
  });

  it("leaves nothing when it is discarded, at whatever stage", async () => {
    const kept = await states.publish();
    const before = await states.present();
    const empty = await states.generations.begin();
    await empty.discard();
    const filled = await states.generations.begin();
    await states.fill(filled, kept);
    await filled.discard();
    const published = await states.generations.begin();
    await published.publish(await states.fill(published, kept));
    await published.discard();
    await published.discard();
    expect(await states.present()).toEqual(before);
    expect(await states.flaws(kept.id)).toEqual([]);
  });

  it("is not published when a layer that it needs is missing", async () => {
    const draft = await states.generations.begin();
    const content = await states.fill(draft, null);
    await rm(states.layout.layer(draft.diskLayer).directory, { recursive: true });
    await expect(draft.publish(content)).rejects.toMatchObject({ code: "snapshot_damaged" });
    await expect(states.generations.read(draft.id)).rejects.toMatchObject({ code: "snapshot_damaged" });
  });

  it("takes no device state that is another file under that name", async () => {
    const draft = await states.generations.begin();
    const content = await states.fill(draft, null);
    const secret = path.join(states.layout.root, "secret");
    await writeFile(secret, "secret");
    for (const plant of [symlink, link]) {
      await rm(content.deviceState);
      await plant(secret, content.deviceState);
      await expect(draft.publish(content)).rejects.toMatchObject({ code: "engine_failed" });
    }
    expect(await readdir(states.layout.generation(draft.id).directory)).toEqual(["memory.header"]);
  });

  it("keeps what was needed first, and a lack of it is no error", async () => {
    const { id } = await states.publish();
    const recorded = path.join(states.layout.root, "working-set");
    await states.generations.keepWorkingSet(id, recorded);
    await writeFile(recorded, "pages");
    await states.generations.keepWorkingSet(id, recorded);
    expect(await readdir(states.layout.generation(id).directory)).toContain("working-set");
    expect(await states.strays()).toEqual([]);
  });
});

describe("what was frozen by another machine", () => {
  it.each(["version", "cpu", "machine"] as const)("is refused when its %s differs, naming both", async (key) => {
    const manifest = await states.publish();
    const attempt = states.generations.assertRestorable(manifest, { ...testMachine, [key]: "another" });
    await expect(attempt).rejects.toMatchObject({
      code: "snapshot_incompatible",
      message: `The frozen state needs ${key} ${testMachine[key]}, not another.`,
      details: { frozen: testMachine, different: [key] },
    });
  });
});

describe("what is damaged", () => {
  it("is refused: no manifest, half of one, or another's", async () => {
    const [first, second] = [await states.publish(), await states.publish()];
    const { manifest } = states.layout.generation(first.id);
    for (const content of ["", '{"version": 1', "{}", JSON.stringify(second)]) {
      await writeFile(manifest, content);
      await expect(states.generations.read(first.id)).rejects.toMatchObject({ code: "snapshot_damaged" });
    }
    await rm(manifest);
    await expect(states.generations.read(first.id)).rejects.toMatchObject({ code: "snapshot_damaged" });
  });

  it("is refused: a layer, the header, the root filesystem or the device state is missing or changed", async () => {
    const manifest = await states.publish();
    const { layout, generations } = states;
    const files = layout.generation(manifest.id);
    const [layer] = manifest.memory.layers;
    const [disk] = manifest.disk.layers;
    if (layer === undefined || disk === undefined) throw new Error("It has both.");
    await writeFile(files.deviceState, "other devices");
    await expect(generations.assertRestorable(manifest, testMachine)).rejects.toMatchObject({
      code: "snapshot_damaged",
      message: "The state of the devices is not what was written.",
    });
    await writeFile(files.deviceState, "devices");
    await generations.assertRestorable(manifest, testMachine);
    const needed = [layout.layer(layer).memory, layout.layer(disk).disk("qcow2"), files.header("memory.header")];
    for (const file of [...needed, manifest.disk.rootfs]) {
      await rm(file);
      await expect(generations.assertRestorable(manifest, testMachine)).rejects.toMatchObject({
        code: "snapshot_damaged",
        details: { file },
      });
      await writeFile(file, "");
    }
  });

  it("is found before a flat image is mapped, once per layer; a failed check is made again", async () => {
    const verified: string[] = [];
    let damaged = true;
    const generations = await Generations.open(states.layout, {
      verify: async (header) => {
        verified.push(header);
        if (damaged) throw new Error("damaged");
        return null;
      },
    });
    const flat = await states.publish();
    await expect(generations.verifyOnce(flat)).rejects.toThrow("damaged");
    damaged = false;
    await Promise.all([generations.verifyOnce(flat), generations.verifyOnce(flat)]);
    expect(verified).toEqual(
      Array.from({ length: 2 }, () => states.layout.generation(flat.id).header("memory.header")),
    );
  });

  it("is found before layers are mapped, and those that are known are not read again", async () => {
    const known: (readonly string[])[] = [];
    const base = await states.publish();
    const [layer] = base.memory.layers;
    if (layer === undefined) throw new Error("It has one.");
    const generations = await Generations.open(states.layout, {
      verify: async (_header, layers) => {
        known.push(layers);
        return layer;
      },
    });
    const layered = await states.publish(base);
    expect(await generations.unverifiedBytes(layered)).toBeGreaterThan(await generations.unverifiedBytes(base));
    await expect(generations.verifyOnce(base)).resolves.toBe(layer);
    expect(await generations.unverifiedBytes(base)).toBe(0);
    await expect(Promise.all([generations.verifyOnce(layered), generations.verifyOnce(layered)])).resolves.toEqual([
      layer,
      layer,
    ]);
    expect(known).toEqual([[], [layer]]);
    expect(await generations.unverifiedBytes(layered)).toBe(0);
    // A file that is not what it was is not known.
    await writeFile(states.layout.layer(layer).memory, "changed");
    expect(await generations.unverifiedBytes(layered)).toBeGreaterThan(0);
    await generations.verifyOnce(layered);
    expect(known).toEqual([[], [layer], [layered.memory.layers[0]]]);
  });
});

describe("a generation in use", () => {
  it("is held with all its layers", async () => {
    const { generations } = states;
    const manifest = await states.publish(await states.publish());
    await generations.using(manifest.id, async (current) => {
      expect(generations.pins.all()).toEqual(new Set([manifest.id, ...layersOf(current)]));
    });
    expect(generations.pins.all().size).toBe(0);
  });

  it("is read again when it was folded just before it was held", async () => {
    const { generations } = states;
    const manifest = await states.publish(await states.publish());
    const other = await states.publish();
    vi.spyOn(generations, "read").mockImplementationOnce(async () => {
      const { memory, disk } = other;
      await generations.republish(manifest, { memory, disk });
      return manifest;
    });
    await generations.using(manifest.id, async (current) => {
      expect(current.memory.layers).toEqual(other.memory.layers);
      expect(generations.pins.all()).toEqual(new Set([manifest.id, ...layersOf(other)]));
    });
  });

  it("is let go when the work on it fails", async () => {
    const { id } = await states.publish();
    const failing = states.generations.using(id, () => Promise.reject(new Error("failed")));
    await expect(failing).rejects.toThrow("failed");
    expect(states.generations.pins.all().size).toBe(0);
  });
});
