import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { diskFormats, newId } from "@wrenn/contract";
import { identifyProcess, isAlive, type Layout, startDaemon, wrennLayout } from "@wrenn/system";
import { afterEach, beforeEach, expect, it } from "vitest";
import { type Holdings, noHoldings } from "./context.ts";
import { endEngine, removeOverlays, removeRuntimeFiles } from "./free.ts";

let layout: Layout;
let holdings: Holdings;

beforeEach(async () => {
  layout = wrennLayout(await mkdtemp(path.join(tmpdir(), "wrenn-free-")));
  const files = layout.sandbox(newId("sandbox"));
  await mkdir(files.directory, { recursive: true });
  holdings = noHoldings(files);
});

afterEach(async () => {
  await rm(layout.root, { recursive: true });
});

it("removes disks, sockets and files that the engine has replaced by directories", async () => {
  const { files } = holdings;
  const { qmpSocket, pagerSocket, deviceState, workingSet } = files;
  const overlays = diskFormats.flatMap((format) => [files.overlay(format), files.otherOverlay(format)]);
  for (const file of [...overlays, qmpSocket, pagerSocket, deviceState, workingSet]) {
    await mkdir(file);
    await writeFile(path.join(file, "obstacle"), "");
  }
  await removeOverlays(holdings.files);
  await removeRuntimeFiles(holdings.files);
  await expect(readdir(holdings.files.directory)).resolves.toEqual([]);
});

it("ends the engine that was written down, whatever its command line says", async () => {
  const { pid } = await startDaemon("sleep", ["60"], { logFile: "/dev/null" });
  const process = await identifyProcess(pid);
  if (process === null) throw new Error("sleep ended at once");
  holdings.process = process;
  await endEngine(holdings);
  await expect(isAlive(process)).resolves.toBe(false);
  expect(holdings.process).toBeNull();
});
