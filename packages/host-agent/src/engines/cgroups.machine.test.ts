/** Control groups of this machine, in whichever version it has them. */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { identifyProcess, startDaemon } from "@wrenn/system";
import { pino } from "pino";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Cgroups } from "./cgroups.ts";

const tag = "cg01";
const limits = { memoryMib: 64, cpus: 2, pids: 10 };

let warnings: string[];
let cgroups: Cgroups;

beforeEach(async () => {
  warnings = [];
  cgroups = await Cgroups.open(tag, pino({ level: "warn" }, { write: (line) => void warnings.push(line) }));
});

afterEach(async () => {
  for (const name of await cgroups.list()) await cgroups.remove(name);
  await cgroups.close();
});

it("ends what is still in a group when it removes it", async () => {
  const { procsFiles } = await cgroups.create("held", limits);
  const { pid, exited } = await startDaemon("sleep", ["10"], { logFile: "/dev/null" });
  for (const file of procsFiles) await writeFile(file, String(pid));
  await cgroups.remove("held");
  await exited;
  await expect(identifyProcess(pid)).resolves.toBeNull();
  await expect(cgroups.list()).resolves.toEqual([]);
});

it("limits swap with memory, where the kernel counts it", async () => {
  const { procsFiles } = await cgroups.create("swap", limits);
  const bytes = String(limits.memoryMib * 1_048_576);
  const expected = { "memory.swap.max": "0", "memory.memsw.limit_in_bytes": bytes };
  for (const [name, value] of Object.entries(expected)) {
    const files = procsFiles.map((file) => path.join(path.dirname(file), name)).filter((file) => existsSync(file));
    const written = await Promise.all(files.map((file) => readFile(file, "utf8")));
    expect(written.filter((text) => text.trim() !== value)).toEqual([]);
  }
});

it("does without a limit on processors that a group above does not allow, and says so once", async (context) => {
  const { procsFiles } = await cgroups.create("modest", { ...limits, cpus: 0.5 });
  const groups = procsFiles.map((file) => path.dirname(path.dirname(file)));
  const quota = groups.map((group) => path.join(group, "cpu.cfs_quota_us")).find((file) => existsSync(file));
  context.skip(quota === undefined, "the unified hierarchy takes any limit, also one above its parent's");
  await writeFile(String(quota), "100000");
  for (const name of ["first", "second"]) await cgroups.create(name, limits);
  expect(cgroups.missing).toContain("cpu");
  expect(warnings).toHaveLength(1);
});

it("leaves this process in its groups when it expects a member", async () => {
  const said: string[] = [];
  const log = pino({ level: "debug" }, { write: (line) => void said.push(line) });
  const others = await Cgroups.open(tag, log);
  const before = await readFile("/proc/self/cgroup", "utf8");
  await others.expectMember();
  await expect(readFile("/proc/self/cgroup", "utf8")).resolves.toBe(before);
  expect(said).toEqual([]);
});
