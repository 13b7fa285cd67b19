/** In which circumstances a run was made, in words: a figure without them means little. */
import { readFile } from "node:fs/promises";
import os from "node:os";
import { run } from "@wrenn/system";
import type { Circumstances } from "./report.ts";

export async function describeCircumstances(directory: string): Promise<Circumstances> {
  const commit = (await run("git", ["describe", "--always", "--dirty"])).stdout.trim();
  const engine = (await run("qemu-system-x86_64", ["--version"])).stdout.split("\n")[0] ?? "";
  const fileSystem = (await run("stat", ["--file-system", "--format=%T", directory])).stdout.trim();
  const model = /^model name\s*:\s*(.+)$/m.exec(await readFile("/proc/cpuinfo", "utf8"))?.[1] ?? "unknown";
  return {
    commit,
    cpu: model,
    cores: os.cpus().length,
    kernel: os.release(),
    engine: `${engine}, software emulation`,
    fileSystem,
    at: new Date().toISOString(),
  };
}
