/** What a server has left on the machine: processes, namespaces, links, rules, cgroups, mounts, directories. */
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { instanceTag } from "@wrenn/host-agent";
import { isMissingFile, pollUntil, run } from "@wrenn/system";

/** The kernel frees namespaces and cgroups a moment after their last process. */
const settleMs = 10_000;

/** One line for each thing that should not be there any more. */
export async function leftoversOf(wrennDir: string): Promise<string[]> {
  const clean = await pollUntil(async () => ((await findLeftovers(wrennDir)).length === 0 ? true : null), {
    timeoutMs: settleMs,
    intervalMs: 200,
  });
  return clean === null ? findLeftovers(wrennDir) : [];
}

async function findLeftovers(wrennDir: string): Promise<string[]> {
  const tag = instanceTag(wrennDir);
  const found = await Promise.all([
    processes(wrennDir),
    namedLike("network namespace", "/run/netns", tag),
    namedLike("network link", "/sys/class/net", tag),
    tables(tag),
    cgroups(tag),
    mounts(wrennDir),
    entries(path.join(wrennDir, "sandboxes")).then((names) => names.map((name) => `sandbox directory ${name}`)),
  ]);
  return found.flat();
}

/** Processes that name the directory in their arguments or environment. */
async function processes(wrennDir: string): Promise<string[]> {
  const pids = (await entries("/proc")).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [commandLine, environment] = await Promise.all([
        readProcFile(pid, "cmdline"),
        readProcFile(pid, "environ"),
      ]);
      const isOurs = commandLine.includes(wrennDir) || environment.includes(`WRENN_DIR=${wrennDir}\0`);
      return isOurs ? [`process ${pid}: ${commandLine.replaceAll("\0", " ")}`] : [];
    }),
  );
  return found.flat();
}

async function readProcFile(pid: string, name: string): Promise<string> {
  // A process may end, or be a kernel thread without either, while it is looked at.
  return readFile(`/proc/${pid}/${name}`, "utf8").catch(() => "");
}

async function namedLike(what: string, directory: string, tag: string): Promise<string[]> {
  return (await entries(directory)).filter((name) => name.includes(tag)).map((name) => `${what} ${name}`);
}

async function tables(tag: string): Promise<string[]> {
  const { stdout } = await run("nft", ["list", "tables"]);
  return stdout.split("\n").filter((line) => line.includes(tag));
}

/** Groups of sandboxes, in every hierarchy there is (version 1 has one for each controller). */
async function cgroups(tag: string): Promise<string[]> {
  const root = "/sys/fs/cgroup";
  const hierarchies = ["", ...(await entries(root))];
  const found = await Promise.all(
    hierarchies.map(async (hierarchy) => {
      const group = path.join(root, hierarchy, "wrenn", tag);
      const names = await readdir(group, { withFileTypes: true }).catch(() => []);
      return names.filter((entry) => entry.isDirectory()).map((entry) => `cgroup ${path.join(group, entry.name)}`);
    }),
  );
  return found.flat();
}

async function mounts(wrennDir: string): Promise<string[]> {
  const table = await readFile("/proc/self/mountinfo", "utf8");
  return table
    .split("\n")
    .filter((line) => line.includes(wrennDir))
    .map((line) => `mount ${line}`);
}

async function entries(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
