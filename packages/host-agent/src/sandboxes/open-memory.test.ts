import { newId, platformTeamId, minimalTemplateId } from "@wrenn/contract";
import { identifyProcess } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Generations } from "../memory/generations.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import { TestStates } from "../memory/testing/states.ts";
import { noHoldings } from "./context.ts";
import type { SandboxFacts } from "./journal.ts";
import { type MemoryChoice, openMemory } from "./open-memory.ts";

const facts: SandboxFacts = {
  version: 2,
  sandboxId: newId("sandbox"),
  teamId: platformTeamId,
  template: { teamId: platformTeamId, templateId: minimalTemplateId },
  vcpus: 1,
  memoryMib: 512,
  diskMib: 5_120,
  engine: "qemu-tcg",
  createdAt: new Date().toISOString(),
};

let states: TestStates;
/** The state that the others are laid over, checked already. */
let base: GenerationManifest;
let generations: Generations;
let folded: string[];

beforeEach(async () => {
  states = await TestStates.make();
  base = await states.publish();
  folded = [];
  // Says, as the pager would, that what lies below all others lies in place.
  const verify = async (): Promise<GenerationManifest["memory"]["layers"][number] | null> =>
    base.memory.layers[0] ?? null;
  generations = await Generations.open(states.layout, { verify });
  await generations.verifyOnce(base);
});

afterEach(async () => {
  await states.remove();
});

/** How memory of a state comes back: from how many layers, or by a pager. */
async function waysOf(
  manifest: GenerationManifest,
  choice: MemoryChoice = "auto",
  { mapsLayers = true, servesPages = true } = {},
): Promise<number | "served"> {
  const self = await identifyProcess(process.pid);
  if (self === null) throw new Error("This process lives.");
  const context = {
    generations,
    layout: states.layout,
    memoryChoice: choice,
    servesPages,
    pager: { start: async () => ({ identity: self, status: async () => null }) },
    folds: {
      add: (id: string) => void folded.push(id),
      idle: async () => generations.republish(manifest, { memory: base.memory, disk: base.disk }),
    },
  };
  const request = { facts, mapsLayers, manifest, uid: 1_000, cgroup: { procsFiles: [] } };
  const holdings = noHoldings(states.layout.sandbox(facts.sandboxId));
  const { guest, source } = await openMemory(context, request, holdings, new AbortController().signal);
  expect(source.parent).toBe(manifest.id);
  expect(source.mapped).toBe(guest.backend === "uffd" ? null : base.memory.layers[0]);
  expect(source.layered).toBe(guest.backend === "layers");
  expect(holdings.pager).toBe(guest.backend === "uffd" ? self : null);
  return guest.backend === "uffd" ? "served" : guest.backend === "file" ? 1 : guest.layers.length;
}

it("maps layers that are quickly checked and few pieces, and has all others served", async () => {
  const small = await states.publish(base);
  await expect(waysOf(small)).resolves.toBe(2);
  const large = await states.publish(base, 20 * 1_048_576);
  await expect(waysOf(large)).resolves.toBe("served");
  await expect(waysOf(large, "file")).resolves.toBe(2);
  // It has been read by now.
  await expect(waysOf(large)).resolves.toBe(2);
  const scattered = { ...small, memory: { ...small.memory, extents: 10_000 } };
  await expect(waysOf(scattered)).resolves.toBe("served");
});

it("maps flat images whatever the engine, and layers only where it can", async () => {
  const small = await states.publish(base);
  await expect(waysOf(base, "auto", { mapsLayers: false })).resolves.toBe(1);
  await expect(waysOf(small, "auto", { mapsLayers: false })).resolves.toBe("served");
  await expect(waysOf(small, "uffd")).resolves.toBe("served");
  await expect(waysOf(base, "uffd")).resolves.toBe("served");
});

it("maps what nobody can serve, however much there is to check", async () => {
  const large = await states.publish(base, 20 * 1_048_576);
  await expect(waysOf(large, "auto", { servesPages: false })).resolves.toBe(2);
});

it("folds what can be neither mapped nor served", async () => {
  const small = await states.publish(base);
  await expect(waysOf(small, "auto", { mapsLayers: false, servesPages: false })).resolves.toBe(1);
  expect(folded).toEqual([small.id]);
});
