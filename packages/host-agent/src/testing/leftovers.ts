/** For tests: what of its sandboxes a host agent has left on the machine, apart from what stands ready for the next ones. */
import { readdir, readFile, readlink } from "node:fs/promises";
import { isMissingFile, type Layout, pollUntil } from "@wrenn/system";
import { readGoldenRecords } from "../memory/golden-record.ts";
import { layersOf } from "../memory/manifest.ts";
import { idsIn, readManifest } from "../memory/read-manifest.ts";
import type { TestHostAgent } from "./host-agent-process.ts";

/** Garbage is looked for twice before it goes, and connections that are kept alive close by themselves after a while. */
const settleMs = 30_000;

/** What the host agent's process has open, without connections of tests that are still kept alive. */
export async function descriptorsOf(agent: TestHostAgent): Promise<string[]> {
  const directory = `/proc/${agent.process?.pid}/fd`;
  const sockets = await socketNames();
  const targets = await Promise.all(
    (await readdir(directory)).map(async (name) => {
      try {
        const target = await readlink(`${directory}/${name}`);
        // Numbers of sockets and pipes say nothing.
        return sockets.get(target) ?? target.replace(/\[\d+\]$/, "");
      } catch (error) {
        if (isMissingFile(error)) return null;
        throw error;
      }
    }),
  );
  return targets.filter((target) => target !== null).sort();
}

/** What each socket of the machine is, by the name that a descriptor's link has: where it listens or was accepted, or what it leads to. */
async function socketNames(): Promise<Map<string, string>> {
  const rows = async (protocol: string): Promise<string[][]> => {
    const table = await readFile(`/proc/net/${protocol}`, "utf8");
    return table.split("\n").map((line) => line.trim().split(/\s+/));
  };
  const unix = (await rows("unix")).map(([, , , , , , inode, path]) => [inode, `unix socket ${path ?? "of a client"}`]);
  const tcp = (await rows("tcp")).map((row) => [row[9], `TCP socket to ${row[2]}`]);
  return new Map([...unix, ...tcp].map(([inode, name = ""]) => [`socket:[${inode}]`, name]));
}

/** A line for each thing that is there and should not be, once all sandboxes are destroyed and there has been time to clear up. */
export async function leftoversOf(
  agent: TestHostAgent,
  slotsReady: number,
  descriptors: readonly string[],
): Promise<string[]> {
  let left: string[] = [];
  await pollUntil(
    async () => {
      left = await findLeftovers(agent, slotsReady, descriptors);
      return left.length === 0 ? true : null;
    },
    { timeoutMs: settleMs, intervalMs: 250 },
  );
  return left;
}

async function findLeftovers(
  agent: TestHostAgent,
  slotsReady: number,
  descriptors: readonly string[],
): Promise<string[]> {
  const { engines, directories, cgroups, blockDevices, namespaces } = await agent.traces();
  return [
    ...engines.map((pid) => `engine ${pid}`),
    ...directories.map((name) => `directory ${name}`),
    ...cgroups.map((name) => `cgroup ${name}`),
    ...blockDevices.map((name) => `block device ${name}`),
    ...(namespaces > slotsReady ? [`${namespaces - slotsReady} namespaces`] : []),
    ...(await pagers(agent.layout)),
    ...(await mounts(agent.layout)),
    ...(await frozenStates(agent.layout)),
    ...beyond(await descriptorsOf(agent), descriptors).map((target) => `descriptor of ${target}`),
  ];
}

async function pagers({ root }: Layout): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      // It may end while it is looked at.
      const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      return commandLine.startsWith(`${root}/bin/wrenn-pager`) ? [`pager ${pid}`] : [];
    }),
  );
  return found.flat();
}

async function mounts({ root }: Layout): Promise<string[]> {
  const table = await readFile("/proc/self/mountinfo", "utf8");
  return table.split("\n").flatMap((line) => (line.includes(root) ? [`mount ${line}`] : []));
}

/** Generations and layers that no golden snapshot needs. */
async function frozenStates(layout: Layout): Promise<string[]> {
  const golden = new Set((await readGoldenRecords(layout)).map(({ generation }) => generation));
  const manifests = await Promise.all([...golden].map((id) => readManifest(layout, id)));
  const needed = new Set(manifests.flatMap((manifest) => (manifest === null ? [] : layersOf(manifest))));
  const generations = (await idsIn("generation", layout.generations)).filter((id) => !golden.has(id));
  const layers = (await idsIn("layer", layout.layers)).filter((id) => !needed.has(id));
  return [...generations.map((id) => `generation ${id}`), ...layers.map((id) => `layer ${id}`)];
}

/** The members of a list that another has not, each as often as it is there too often. */
function beyond(list: readonly string[], expected: readonly string[]): string[] {
  const rest = [...expected];
  return list.filter((item) => {
    const at = rest.indexOf(item);
    if (at >= 0) rest.splice(at, 1);
    return at < 0;
  });
}
