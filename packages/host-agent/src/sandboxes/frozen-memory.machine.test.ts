/** What is in the frozen memory of a real VM, page by page, and what it costs to freeze it again. */
import { type FileHandle, open, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { newId, parseUuid } from "@wrenn/contract";
import { readJson, signalProcess } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PagerProgram } from "../memory/pager.ts";
import { readManifest } from "../memory/read-manifest.ts";
import { TestHostAgent } from "../testing/host-agent-process.ts";
import { forget, TestSandbox } from "../testing/test-sandbox.ts";
import { journalSchema } from "./journal.ts";
import { ModelledGuest } from "./testing/modelled-guest.ts";

const pageBytes = 4_096;
const entryBytes = 8;
/** Read at once. */
const chunkPages = 1_024;

/** Bits of an entry of /proc/PID/pagemap. */
const present = 1n << 63n;
const ofFile = 1n << 61n;

let agent: TestHostAgent;

/** The frozen memory of a paused sandbox in one file; a copy that nothing else needs. */
async function frozenMemory(sandbox: TestSandbox): Promise<FileHandle> {
  const { generationId } = await sandbox.describe();
  const { layout } = agent;
  const id = parseUuid("generation", generationId);
  const manifest = await readManifest(layout, id);
  const header = layout.generation(id).header(manifest?.memory.header ?? "");
  const layer = newId("layer");
  const output = path.join(layout.root, "dump.header");
  await new PagerProgram(layout).fold({ header, layer, output }, new AbortController().signal);
  const file = await open(layout.layer(layer).memory);
  await rm(layout.layer(layer).directory, { recursive: true });
  await rm(output);
  return file;
}

/** Where the guest's memory begins in the engine's process. */
async function memoryAddress(sandbox: TestSandbox, pid: number, memory: "file" | "uffd"): Promise<number> {
  if (memory === "uffd") {
    const status = JSON.parse(await readFile(agent.layout.sandbox(sandbox.id).pagerStatus, "utf8")) as {
      regions: { base_host_virt_addr: number }[];
    };
    return status.regions[0]?.base_host_virt_addr ?? 0;
  }
  const journal = journalSchema.parse(await readJson(agent.layout.sandbox(sandbox.id).journal));
  const layer = journal.state === "running" ? journal.memory.mapped : null;
  if (layer === null) throw new Error("It maps no layer.");
  const maps = await readFile(`/proc/${pid}/maps`, "utf8");
  // Pieces of other layers and zeros may lie before the first of this one, which lies in place.
  const line = maps.split("\n").find((text) => text.includes(agent.layout.layer(layer).memory)) ?? "";
  const [range = "", , offset = ""] = line.split(" ");
  return Number.parseInt(range, 16) - Number.parseInt(offset, 16);
}

interface Comparison {
  readonly same: number;
  /** Differ, and are the process's own: the guest has written to them since. */
  readonly written: number;
  /** Differ although they are still those of the image's file. */
  readonly wrong: number;
  /** Not brought back yet. */
  readonly absent: number;
}

/** Compares the memory of a process that stands still with an image, page by page. */
async function compare(image: FileHandle, pid: number, address: number, pages: number): Promise<Comparison> {
  const memory = await open(`/proc/${pid}/mem`);
  const pagemap = await open(`/proc/${pid}/pagemap`);
  const counts = { same: 0, written: 0, wrong: 0, absent: 0 };
  try {
    const frozen = Buffer.alloc(pageBytes);
    const now = Buffer.alloc(pageBytes);
    const entries = Buffer.alloc(chunkPages * entryBytes);
    for (let first = 0; first < pages; first += chunkPages) {
      await pagemap.read(entries, 0, entries.length, (address / pageBytes + first) * entryBytes);
      for (let page = first; page < first + chunkPages; page++) {
        const entry = entries.readBigUInt64LE((page - first) * entryBytes);
        if ((entry & present) === 0n) {
          counts.absent += 1;
          continue;
        }
        await image.read(frozen, 0, pageBytes, page * pageBytes);
        await memory.read(now, 0, pageBytes, address + page * pageBytes);
        if (now.equals(frozen)) counts.same += 1;
        else if ((entry & ofFile) === 0n) counts.written += 1;
        else counts.wrong += 1;
      }
    }
  } finally {
    await memory.close();
    await pagemap.close();
  }
  return counts;
}

describe.each(["file", "uffd"] as const)("memory that comes back by %s", (memory) => {
  beforeAll(async () => {
    agent = await TestHostAgent.prepare({ WRENN_MEMORY: memory });
    await agent.start();
  });

  afterAll(async () => {
    await agent.remove();
  });

  it("is what was captured page by page, except for pages that were written since", async () => {
    const sandbox = await TestSandbox.create(agent);
    const guest = await ModelledGuest.begin(sandbox.run);
    await guest.remember(sandbox.run, { does: "fill", first: 0, count: 6_144, stride: 1, seed: 7 });
    await sandbox.pause();
    const image = await frozenMemory(sandbox);
    await sandbox.resume();
    // Touches all pages of the ballast, so that they have come back.
    expect(await guest.flaws(sandbox.run)).toEqual([]);
    const engine = await sandbox.engine();
    await signalProcess(engine, "SIGSTOP");
    try {
      const { memoryMib } = await sandbox.describe();
      const pages = (memoryMib * 1_048_576) / pageBytes;
      const address = await memoryAddress(sandbox, engine.pid, memory);
      const counts = await compare(image, engine.pid, address, pages);
      expect(counts.wrong).toBe(0);
      expect(counts.same).toBeGreaterThan(6_144);
      // The guest has done next to nothing since.
      expect(counts.written).toBeLessThan(pages / 10);
    } finally {
      await signalProcess(engine, "SIGCONT");
      await image.close();
    }
    expect(await guest.flaws(sandbox.run)).toEqual([]);
    await sandbox.destroy();
  });

  it("has zeros where it was zeroed, three generations later", async () => {
    const sandbox = await TestSandbox.create(agent);
    const guest = await ModelledGuest.begin(sandbox.run);
    await guest.remember(sandbox.run, { does: "fill", first: 0, count: 6_144, stride: 1, seed: 9 });
    await sandbox.pause();
    await sandbox.resume();
    await guest.remember(sandbox.run, { does: "zero", first: 512, count: 1_024 });
    await guest.remember(sandbox.run, { does: "drop", first: 3_000, count: 1_111 });
    for (let generation = 0; generation < 3; generation++) {
      await sandbox.pause();
      await sandbox.resume();
      expect(await guest.flaws(sandbox.run)).toEqual([]);
      const seed = generation + 10;
      await guest.remember(sandbox.run, { does: "fill", first: 2_000 + generation, count: 100, stride: 5, seed });
    }
    await sandbox.destroy();
  });

  it("costs the tenth snapshot of a sandbox no more than the first", async () => {
    const sandbox = await TestSandbox.create(agent);
    const guest = await ModelledGuest.begin(sandbox.run);
    const sizes: number[] = [];
    for (let round = 1; round <= 10; round++) {
      await guest.remember(sandbox.run, { does: "fill", first: round * 64, count: 64, stride: 1, seed: round });
      const snapshot = await sandbox.keep();
      sizes.push(Number(snapshot.sizeBytes));
      if (round % 2 === 0) await forget(agent, snapshot);
    }
    expect(sizes[9]).toBeLessThanOrEqual(sizes[0] ?? 0);
    expect(await guest.flaws(sandbox.run)).toEqual([]);
    await sandbox.destroy();
    for (const kept of (await agent.client.listSnapshots({})).snapshots) await forget(agent, kept);
  });
});
