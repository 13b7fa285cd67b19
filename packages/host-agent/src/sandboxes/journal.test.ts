import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { minimalTemplateId, newId, platformTeamId } from "@wrenn/contract";
import { type Layout, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Journal, journalSchema, readJournals, writeJournal } from "./journal.ts";

let layout: Layout;

const running = (): Journal => ({
  version: 1,
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
  const { state: _, slot, process, steps, ...facts } = running() as Extract<Journal, { state: "running" }>;
  const death = { code: "guest_panicked", message: "It did.", at: facts.createdAt, consoleTail: "oops" } as const;
  const journals: Journal[] = [
    { ...facts, sandboxId: newId("sandbox"), state: "creating", slot: null, process: null },
    { ...facts, sandboxId: newId("sandbox"), state: "creating", slot, process },
    { ...facts, sandboxId: newId("sandbox"), state: "running", slot, process, steps },
    { ...facts, sandboxId: newId("sandbox"), state: "destroying", slot, process: null },
    { ...facts, sandboxId: newId("sandbox"), state: "dead", slot: null, process: null, steps, death },
  ];
  for (const journal of journals) await write(journal);
  const inventory = await readJournals(layout);
  expect(inventory.journals).toHaveLength(journals.length);
  expect(inventory.journals).toEqual(expect.arrayContaining(journals));
  expect(inventory.unreadable).toEqual([]);
});

it("takes a running sandbox without its process for unreadable", () => {
  expect(journalSchema.safeParse({ ...running(), process: null }).success).toBe(false);
});

it("tells directories without journal, with half of one, and with another's", async () => {
  const [empty, torn, foreign] = [newId("sandbox"), newId("sandbox"), newId("sandbox")];
  for (const id of [empty, torn, foreign]) await mkdir(layout.sandbox(id).directory, { recursive: true });
  await writeFile(layout.sandbox(torn).journal, '{"version": 1, "sandb');
  await writeFile(layout.sandbox(foreign).journal, JSON.stringify(running()));
  await mkdir(path.join(layout.sandboxes, "not-an-id"));
  const inventory = await readJournals(layout);
  expect(inventory.journals).toEqual([]);
  expect(inventory.unreadable.toSorted()).toEqual([empty, torn, foreign].toSorted());
  expect(inventory.foreign).toEqual(["not-an-id"]);
});

it("finds nothing on a host that never had a sandbox", async () => {
  await expect(readJournals(layout)).resolves.toEqual({ journals: [], unreadable: [], foreign: [] });
});
