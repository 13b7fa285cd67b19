/** The machine itself: system, Node, memory, disk and clock. */
import { readFile, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { engineMemoryOverheadMib, hostReserve, sandboxLimits } from "@wrenn/contract";
import { isMissingFile, type Layout, socketPathsFit } from "@wrenn/system";
import { type Examination, failed, ok, type Outcome, warning } from "./check.ts";

const mebibyte = 1_048_576;
const gibibyte = 1_073_741_824;

/** A root filesystem, packages and kernel take about 1 GiB; a sandbox's overlay begins at a few MiB. */
const setUpBytes = 2 * gibibyte;

export const machineExaminations: readonly Examination[] = [
  {
    name: "system",
    look: async () => {
      const release = (await readFile("/proc/sys/kernel/osrelease", "utf8")).trim();
      const found = `${process.platform} ${process.arch}, kernel ${release}`;
      return process.platform === "linux" && process.arch === "x64" ? ok(found) : failed(found, "Use Linux on x86-64.");
    },
  },
  {
    name: "root",
    look: async () =>
      process.geteuid?.() === 0
        ? ok("running as root")
        : failed("not running as root; what only root can see was not checked", "Run the same command with sudo."),
  },
  { name: "node", look: async () => checkNode(process.versions.node) },
  { name: "memory", look: checkMemory },
  { name: "disk", look: checkDisk },
  { name: "clock", look: checkClock },
  { name: "directory", look: checkDirectory },
];

/** @param version for instance `20.19.1` */
export function checkNode(version: string): Outcome {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const supported = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major >= 24;
  return supported ? ok(version) : failed(`${version} is not supported`, "Install Node.js 20.19, 22.12, 24 or newer.");
}

async function checkMemory(): Promise<Outcome> {
  const memInfo = await readFile("/proc/meminfo", "utf8");
  const availableMib = Math.floor(Number(/^MemAvailable:\s+(\d+) kB$/m.exec(memInfo)?.[1] ?? 0) / 1_024);
  const perSandbox = sandboxLimits.memoryMib.default + engineMemoryOverheadMib;
  const sandboxes = Math.max(0, Math.floor((availableMib - hostReserve.memoryMib) / perSandbox));
  const found = `${availableMib} MiB available, enough for ${sandboxes} sandboxes of the default size`;
  return sandboxes > 0 ? ok(found) : failed(found, "End what uses the memory, or use a machine with more.");
}

async function checkDisk(layout: Layout): Promise<Outcome> {
  const place = await nearestThatExists(layout.root);
  const { bavail, bsize } = await statfs(place);
  const found = `${((bavail * bsize) / gibibyte).toFixed(1)} GiB free in ${layout.root}`;
  const remedy = `Free space in ${layout.root}, or choose another place with WRENN_DIR.`;
  if (bavail * bsize < hostReserve.diskBytes) return failed(found, remedy);
  return bavail * bsize < setUpBytes ? warning(found, remedy) : ok(found);
}

/** A clock that runs behind makes certificates, hence every download, invalid. Guests take theirs from the host. */
async function checkClock(): Promise<Outcome> {
  const written = (await stat(new URL(import.meta.url))).mtimeMs;
  const now = new Date().toISOString();
  return Date.now() >= written
    ? ok(now)
    : failed(
        `${now} is before ${new Date(written).toISOString()}, when this program was built`,
        "Set the machine's clock: timedatectl set-ntp true",
      );
}

/** Engines and PostgreSQL run under users of their own, so everyone must be able to pass through to Wrenn's files. */
async function checkDirectory(layout: Layout): Promise<Outcome> {
  if (!socketPathsFit(layout)) {
    return failed(
      `${layout.root} is too long a path: unix sockets in it exceed 107 bytes`,
      "Choose a shorter WRENN_DIR.",
    );
  }
  for (let at = await nearestThatExists(layout.root); at !== "/"; at = path.dirname(at)) {
    const { mode } = await stat(at);
    if ((mode & 0o001) === 0) {
      return failed(
        `other users, as engines are, cannot pass through ${at}`,
        `chmod o+x ${at}, or choose another WRENN_DIR.`,
      );
    }
  }
  const { type } = await statfs(await nearestThatExists(layout.root));
  return type === tmpfsMagic
    ? warning(`${layout.root} lies in memory (tmpfs) and is lost with it`, "Choose a WRENN_DIR on a disk.")
    : ok(layout.root);
}

/** TMPFS_MAGIC, statfs(2). */
const tmpfsMagic = 0x01021994;

async function nearestThatExists(place: string): Promise<string> {
  for (let at = place; ; at = path.dirname(at)) {
    try {
      await stat(at);
      return at;
    } catch (error) {
      if (!isMissingFile(error) || at === "/") throw error;
    }
  }
}

export function inMebibytes(bytes: number): string {
  return `${Math.round(bytes / mebibyte)} MiB`;
}
