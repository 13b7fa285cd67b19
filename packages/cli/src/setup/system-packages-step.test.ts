import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { systemPackagesStep } from "./system-packages-step.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-apt-"));
  vi.stubEnv("PATH", `${directory}:${process.env["PATH"] ?? ""}`);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

/** Stands in for a program of the distribution, which must not really be run here; its calls are written down. */
async function standIn(name: string, script: string): Promise<void> {
  const file = path.join(directory, name);
  await writeFile(file, `#!/bin/sh\ncd ${directory}\necho "${name} $*" >> calls\n${script}\n`);
  await chmod(file, 0o755);
}

async function install(): Promise<string[]> {
  await systemPackagesStep().run({ say: () => undefined, signal: new AbortController().signal });
  const calls = await readFile(path.join(directory, "calls"), "utf8");
  return calls.trim().split("\n");
}

it("packages are installed without dpkg being touched where apt-get has no trouble", async () => {
  await standIn("apt-get", "exit 0");
  await standIn("dpkg", "exit 2");
  expect(await install()).toEqual([expect.stringMatching(/^apt-get .*DPkg::Lock::Timeout=300 install/)]);
});

it("interrupted installations are finished first, once another dpkg has let go of the lock", async () => {
  await standIn("apt-get", 'test "$1" = update || test -e configured');
  await standIn("dpkg", "test -e locked && : > configured && exit 0; : > locked; exit 2");
  const calls = await install();
  expect(calls.filter((call) => call.startsWith("dpkg"))).toHaveLength(2);
  expect(calls.at(-1)).toMatch(/^apt-get .*install/);
});
