/** Kills and full disks at every call of the file system that changes something: what was committed stays, nothing half made does. */
import { mkdtemp, rm, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseUuid } from "@wrenn/contract";
import { createLog, run, runUnchecked } from "@wrenn/system";
import { describe, expect, it, onTestFinished } from "vitest";
import { GarbageCollector } from "./collect.ts";
import type { GenerationManifest } from "./manifest.ts";
import { collectRoots } from "./roots.ts";
import { type OperationName, perform } from "./testing/operations.ts";
import { TestStates } from "./testing/states.ts";

const program = fileURLToPath(new URL("../../dist/memory/testing/interrupted.js", import.meta.url));

/** How many of these processes run at once. */
const parallel = 2;

/** A state with a root and two layers of each kind, and one that is garbage. */
async function prepare(parent?: string): Promise<{ states: TestStates; base: GenerationManifest }> {
  const states = await TestStates.make(parent);
  const base = await states.publish(await states.publish());
  await states.keepAsTemplate(base.id);
  await states.publish(base);
  return { states, base };
}

interface Outcome {
  /** What has got a root. */
  readonly rooted: string | undefined;
  readonly failure: string | undefined;
  readonly finished: boolean;
}

/** Lets a process do it until its n-th call, then looks at what is on the disk, before and after the next process has cleared up. */
async function interrupt(operation: OperationName, at: number, how: "kill" | "full"): Promise<Outcome> {
  const { states, base } = await prepare();
  const before = await states.present();
  try {
    const args = [program, states.layout.root, operation, base.id, String(at), how];
    const { stdout } = await runUnchecked(process.execPath, args);
    const rooted = /^rooted (.*)$/m.exec(stdout)?.[1];
    const failure = /^failed (.*)$/m.exec(stdout)?.[1];
    const calls = Number(/^calls (.*)$/m.exec(stdout)?.[1] ?? Number.POSITIVE_INFINITY);
    const outcome = { rooted, failure, finished: calls < at };
    const acknowledged = [base.id, ...(rooted === undefined ? [] : [parseUuid("generation", rooted)])];

    await states.restart();
    for (const id of acknowledged) expect(await states.flaws(id)).toEqual([]);
    // Who is told that it failed finds nothing of it, even before anything is cleared up.
    const undone = operation === "publish" && failure !== undefined;
    expect(undone ? await states.present() : before).toEqual(before);
    await clearUp(states);
    // A process that is killed after it has made the root, but before it says so, has committed, too.
    const { generations } = await collectRoots(states.layout, []);
    for (const id of generations) expect(await states.flaws(id)).toEqual([]);
    expect([...generations]).toEqual(expect.arrayContaining(acknowledged));
    expect(await states.present()).toEqual(await states.expected([...generations]));
    expect(await states.strays()).toEqual([]);
    return outcome;
  } finally {
    await states.remove();
  }
}

async function clearUp(states: TestStates): Promise<void> {
  const collector = new GarbageCollector(states.generations, createLog({ level: "silent" }));
  await collector.sweep(() => collectRoots(states.layout, []), { atOnce: true });
}

/** At every call, until one process has got through. */
async function interruptEverywhere(operation: OperationName, how: "kill" | "full"): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  while (!outcomes.some(({ finished }) => finished)) {
    const next = Array.from({ length: parallel }, (_, index) => outcomes.length + index + 1);
    outcomes.push(...(await Promise.all(next.map((at) => interrupt(operation, at, how)))));
  }
  return outcomes.filter(({ finished }) => !finished);
}

describe("a process that is killed at any step", () => {
  it("of publishing a state leaves the state whole, or nothing of it", async () => {
    const outcomes = await interruptEverywhere("publish", "kill");
    expect(outcomes.length).toBeGreaterThan(15);
  });

  it("of discarding a state leaves nothing of it", async () => {
    const outcomes = await interruptEverywhere("discard", "kill");
    expect(outcomes.length).toBeGreaterThan(15);
  });

  it("of folding leaves the state as it was, or folded", async () => {
    const outcomes = await interruptEverywhere("fold", "kill");
    expect(outcomes.length).toBeGreaterThan(5);
  });

  it("of garbage collection has removed nothing that is needed, and the next one goes on", async () => {
    const outcomes = await interruptEverywhere("sweep", "kill");
    expect(outcomes.length).toBeGreaterThan(2);
  });
});

describe("a disk that is full at any step", () => {
  it("of publishing a state fails it as a whole, and says why", async () => {
    const outcomes = await interruptEverywhere("publish", "full");
    expect(outcomes.filter(({ rooted }) => rooted === undefined).length).toBeGreaterThan(15);
    for (const { failure } of outcomes.filter(({ rooted }) => rooted === undefined)) {
      expect(["host_out_of_disk", "Error: ENOSPC: no space left on device"]).toContain(failure);
    }
  });

  it("of folding leaves the state as it was, or folded", async () => {
    const outcomes = await interruptEverywhere("fold", "full");
    expect(outcomes.length).toBeGreaterThan(5);
  });

  it("really is full: whatever still fits, the older state stays and the new one is whole or gone", async () => {
    const mountPoint = await mkdtemp(path.join(tmpdir(), "wrenn-full-"));
    await run("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mountPoint]);
    onTestFinished(async () => {
      await run("umount", [mountPoint]);
      await rm(mountPoint, { recursive: true });
    });
    const { states, base } = await prepare(mountPoint);
    await clearUp(states);
    const ballast = path.join(mountPoint, "ballast");
    const results: string[] = [];
    for (let left = 0; !results.some((line) => line.startsWith("rooted")); left += 1) {
      const before = await states.present();
      await rm(ballast, { force: true });
      const { bavail, bsize } = await statfs(mountPoint);
      await writeFile(ballast, Buffer.alloc((bavail - left) * bsize));
      await perform("publish", states, base, (line) => results.push(line));
      expect(await states.flaws(base.id)).toEqual([]);
      const failed = results.at(-1)?.startsWith("failed") === true;
      expect(failed ? await states.present() : before).toEqual(before);
    }
    expect(results.length).toBeGreaterThan(3);
    expect(results).toContain("failed host_out_of_disk");
    const rooted = parseUuid("generation", results.at(-1)?.split(" ")[1] ?? "");
    expect(await states.flaws(rooted)).toEqual([]);
  });
});
