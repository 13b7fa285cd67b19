/** The pager program as the host agent uses it, with the memory of engines that have not begun to run. */
import { chmod, chown, mkdir, mkdtemp, open, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { type LayerId, newId } from "@wrenn/contract";
import {
  endProcess,
  identifyProcess,
  isAlive,
  type Layout,
  layoutFromEnvironment,
  pollUntil,
  type ProcessIdentity,
  type SandboxLayout,
  startDaemon,
  wrennLayout,
} from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeBlankMemory } from "../engines/blank-memory.ts";
import { PagerProgram } from "./pager.ts";

const memoryMib = 32;
const mebibyte = 1_048_576;
const never = new AbortController().signal;

/** A user of no slot. */
const uid = 1_999_999_999;

let layout: Layout;
let files: SandboxLayout;
let pager: PagerProgram;
let engines: ProcessIdentity[];

beforeEach(async () => {
  const root = await mkdtemp(path.join(tmpdir(), "wrenn-pager-"));
  await chmod(root, 0o711);
  layout = { ...wrennLayout(root), pager: layoutFromEnvironment().pager };
  files = layout.sandbox(newId("sandbox"));
  for (const directory of [layout.layers, files.directory]) await mkdir(directory, { recursive: true, mode: 0o711 });
  await chmod(files.directory, 0o1777);
  pager = new PagerProgram(layout);
  engines = [];
});
afterEach(async () => {
  for (const engine of engines) await endProcess(engine, 5_000);
  await rm(layout.root, { recursive: true });
});

const script =
  'exec 3<"$1"; library=$2; bytes=$3; shift 3; WRENN_GUEST_MEMORY=size=$bytes,file=3 LD_PRELOAD=$library exec "$@"';

/** An engine whose guest memory is this file, with content at an address, and whose guest has not begun to run. */
async function startEngine(mapped: string, address: number, content: string): Promise<number> {
  const file = path.join(layout.root, "content");
  await writeFile(file, content);
  const machine = [
    "-M",
    "microvm,memory-backend=mem,mem-merge=off",
    "-accel",
    "tcg",
    "-nodefaults",
    "-display",
    "none",
    "-S",
  ];
  const memory = ["-m", `${memoryMib}M`, "-object", `memory-backend-ram,id=mem,size=${memoryMib}M`];
  const loader = ["-device", `loader,file=${file},addr=${address},force-raw=on`];
  const command = ["qemu-system-x86_64", ...machine, ...memory, ...loader];
  const library = layoutFromEnvironment().memoryLibrary;
  const logFile = path.join(layout.root, "engine.log");
  const args = ["-c", script, "sh", mapped, library, String(memoryMib * mebibyte), ...command];
  const { pid } = await startDaemon("sh", args, { logFile, env: { PATH: process.env["PATH"] } });
  const identity = await identifyProcess(pid);
  if (identity === null) throw new Error(await readFile(logFile, "utf8"));
  engines.push(identity);
  const ready = await pollUntil(async () => ((await hasLoaded(pid, mapped, address, content)) ? true : null), {
    timeoutMs: 20_000,
  });
  if (ready === null) throw new Error(`QEMU did not get ready: ${await readFile(logFile, "utf8")}`);
  return pid;
}

/** Looks into the process's memory, where the file is mapped. */
async function hasLoaded(pid: number, mapped: string, address: number, content: string): Promise<boolean> {
  const maps = await readFile(`/proc/${pid}/maps`, "utf8");
  const start = new RegExp(`^([0-9a-f]+)-.* ${mapped}$`, "m").exec(maps)?.[1];
  if (start === undefined) return false;
  const memory = await open(`/proc/${pid}/mem`, "r");
  try {
    const { buffer } = await memory.read(
      Buffer.alloc(content.length),
      0,
      content.length,
      Number.parseInt(start, 16) + address,
    );
    return buffer.toString() === content;
  } finally {
    await memory.close();
  }
}

/** The memory of an engine that began with nothing, with "first" at 1 MiB. */
async function captureBase(): Promise<{ layer: LayerId; header: string }> {
  await makeBlankMemory(files.blankMemory, memoryMib);
  const pid = await startEngine(files.blankMemory, mebibyte, "first");
  const layer = newId("layer");
  const header = path.join(layout.root, "base.header");
  const mapped = { file: files.blankMemory };
  const result = await pager.capture({ pid, memoryMib, mapped, parentHeader: null, layer, header }, never);
  expect(result).toMatchObject({ layers: [layer], flat: true });
  return { layer, header };
}

describe("the pager program", () => {
  it("captures what changed on top of a parent, and folds it into one layer that can be mapped", async () => {
    const base = await captureBase();
    const mapped = layout.layer(base.layer).memory;
    const pid = await startEngine(mapped, 2 * mebibyte, "second");
    const layer = newId("layer");
    const header = path.join(layout.root, "child.header");
    const request = { pid, memoryMib, mapped: { file: mapped }, parentHeader: base.header, layer, header };
    const child = await pager.capture(request, never);
    expect(child.bytesWritten).toBeLessThan(mebibyte);
    await pager.verify(header, []);

    const folded = newId("layer");
    const output = path.join(layout.root, "folded.header");
    expect(await pager.fold({ header, layer: folded, output }, never)).toMatchObject({ layers: [folded], flat: true });
    expect(await pager.inspect(output)).toMatchObject({ memoryMib, layers: [folded], flat: true });
    const content = await readFile(layout.layer(folded).memory);
    expect(content.length).toBe(memoryMib * mebibyte);
    expect(content.subarray(mebibyte).subarray(0, 5).toString()).toBe("first");
    expect(
      content
        .subarray(2 * mebibyte)
        .subarray(0, 6)
        .toString(),
    ).toBe("second");
  });

  it("makes no layer when nothing has changed", async () => {
    const base = await captureBase();
    const mapped = layout.layer(base.layer).memory;
    const pid = await startEngine(mapped, mebibyte, "first");
    const header = path.join(layout.root, "same.header");
    const layer = newId("layer");
    const request = { pid, memoryMib, mapped: { file: mapped }, parentHeader: base.header, layer, header };
    expect(await pager.capture(request, never)).toMatchObject({ layers: [base.layer], pagesWritten: 0 });
    await expect(readFile(layout.layer(layer).memory)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("says that a state is damaged when a byte of it changed, or a file is missing", async () => {
    const { layer, header } = await captureBase();
    const { memory } = layout.layer(layer);
    await chmod(memory, 0o600);
    const handle = await open(memory, "r+");
    await handle.write("F", mebibyte);
    await handle.close();
    const damaged = { code: "snapshot_damaged", details: { pager_code: "layer_damaged" } };
    await expect(pager.verify(header, [])).rejects.toMatchObject(damaged);
    const fold = pager.fold({ header, layer: newId("layer"), output: path.join(layout.root, "folded.header") }, never);
    await expect(fold).rejects.toMatchObject(damaged);
    await rm(memory);
    await expect(pager.verify(header, [])).rejects.toMatchObject({ code: "snapshot_damaged" });
    await writeFile(header, "no header");
    await expect(pager.inspect(header)).rejects.toMatchObject({ code: "snapshot_damaged" });
  });

  it("fails with its own words for a process that is no more", async () => {
    const request = { pid: 4_194_303, memoryMib, mapped: { file: "/none" }, parentHeader: null, layer: newId("layer") };
    const attempt = pager.capture({ ...request, header: path.join(layout.root, "none.header") }, never);
    await expect(attempt).rejects.toMatchObject({
      code: "engine_failed",
      message: expect.stringMatching(/wrenn-pager/),
    });
  });

  it("listens for an engine when it has started, and is found again by the next host agent", async () => {
    const { header } = await captureBase();
    const request = { files, uid, header, workingSet: null, record: files.workingSet, cgroup: { procsFiles: [] } };
    const started = await pager.start(request, never);
    engines.push(started.identity);
    expect(await started.status()).toMatchObject({ state: "listening" });
    expect(await isAlive(started.identity)).toBe(true);
  });

  it("starts where one that ran as another user was killed while it wrote", async () => {
    const { header } = await captureBase();
    const request = { files, uid, header, workingSet: null, record: files.workingSet, cgroup: { procsFiles: [] } };
    for (const file of [files.pagerStatus, files.workingSet]) {
      await writeFile(`${file}.new`, "half of it");
      await chown(`${file}.new`, uid - 1, uid - 1);
    }
    const started = await pager.start(request, never);
    engines.push(started.identity);
    expect(await started.status()).toMatchObject({ state: "listening" });
  });

  it("that cannot start says why, and leaves nothing running", async () => {
    const { layer, header } = await captureBase();
    await rm(layout.layer(layer).directory, { recursive: true });
    const request = { files, uid, header, workingSet: null, record: files.workingSet, cgroup: { procsFiles: [] } };
    await expect(pager.start(request, never)).rejects.toMatchObject({ code: "snapshot_damaged" });
  });
});
