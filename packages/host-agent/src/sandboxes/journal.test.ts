import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import { type Layout, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { factsOf, type Journal, journalSchema, readJournals, type RunningJournal, writeJournal } from "./journal.ts";

let layout: Layout;

const running = (): RunningJournal => ({
  version: 2,
  sandboxId: newId("sandbox"),
  teamId: platformTeamId,
  template: { teamId: platformTeamId, templateId: minimalTemplateId },
  vcpus: 1,
  memoryMib: 512,
  diskMib: 5_120,
  engine: "qemu-tcg",
  createdAt: "2026-01-02T03:04:05.678Z",
  state: "running",
  slot: 3,
  process: { pid: 4_711, startTime: "123456", bootId: "0898863d-9e4a-46c5-86fa-4fa7f855bfaf" },
  machine: { engine: "qemu-tcg", version: "7.2.22", cpu: "max", machine: "microvm" },
  memory: { backend: "file", mapped: newId("layer"), layered: false, pager: null, parent: newId("generation") },
  disk: {
    format: "dm-snapshot",
    overlay: "otherOverlay",
    layers: [newId("layer"), newId("layer")],
    rootfs: "/images/rootfs.ext4",
    switchingTo: null,
  },
  lastPause: newId("generation"),
  steps: [{ step: "boot", milliseconds: 3_000.5 }],
});

async function write(journal: Journal): Promise<void> {
  await mkdir(layout.sandbox(journal.sandboxId).directory, { recursive: true });
  await writeJournal(layout, journal);
}

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-journal-")));
});

afterEach(async () => {
  await rm(layout.root, { recursive: true });
});

it("reads back what was written, in every state", async () => {
  const { slot, process, disk, lastPause, steps } = running();
  const facts = { ...factsOf(running()), steps };
  const death = { code: "guest_panicked", message: "It did.", at: facts.createdAt, consoleTail: "oops" } as const;
  const generation = newId("generation");
  const pausedAt = facts.createdAt;
  const nothing = { slot: null, process: null };
  const journals: Journal[] = (
    [
      { ...facts, ...nothing, state: "creating", origin: null },
      { ...facts, state: "creating", slot, process, origin: generation },
      running(),
      { ...facts, state: "paused", generation, pausedAt },
      { ...facts, state: "resuming", slot, process, generation, pausedAt },
      { ...facts, state: "destroying", slot, process: null },
      { ...facts, ...nothing, state: "dead", lastPause: null, disk, death },
      { ...facts, state: "recovering", slot, process, lastPause, disk, death },
    ] satisfies Journal[]
  ).map((journal) => ({ ...journal, sandboxId: newId("sandbox") }));
  for (const journal of journals) await write(journal);
  const inventory = await readJournals(layout);
  expect(inventory.journals).toHaveLength(journals.length);
  expect(inventory.journals).toEqual(expect.arrayContaining(journals));
  expect(inventory.unreadable).toEqual([]);
});

it("takes a disk without a format for qcow2, which there was before there were others", async () => {
  const { disk, ...rest } = running();
  const { format, ...older } = disk;
  expect(format).toBe("dm-snapshot");
  expect(journalSchema.parse({ ...rest, disk: older })).toEqual({ ...rest, disk: { ...disk, format: "qcow2" } });
});

it("takes a running sandbox without its process for unreadable", () => {
  expect(journalSchema.safeParse({ ...running(), process: null }).success).toBe(false);
});

it("tells directories without journal from those with half of one or another's, which may not be taken for nothing", async () => {
  const [empty, torn, foreign] = [newId("sandbox"), newId("sandbox"), newId("sandbox")];
  for (const id of [empty, torn, foreign]) await mkdir(layout.sandbox(id).directory, { recursive: true });
  await writeFile(layout.sandbox(torn).journal, '{"version": 2, "sandb');
  await writeFile(layout.sandbox(foreign).journal, JSON.stringify(running()));
  await mkdir(path.join(layout.sandboxes, "not-an-id"));
  const inventory = await readJournals(layout);
  expect(inventory.journals).toEqual([]);
  expect(inventory.blank).toEqual([empty]);
  expect(inventory.unreadable.toSorted()).toEqual([torn, foreign].toSorted());
  expect(inventory.foreign).toEqual(["not-an-id"]);
});

it("finds nothing on a host that never had a sandbox", async () => {
  await expect(readJournals(layout)).resolves.toEqual({ journals: [], blank: [], unreadable: [], foreign: [] });
});
