/** The machine itself: system, Node, memory, clock and limits. */
import { access, readFile, stat } from "node:fs/promises";
import { engineMemoryOverheadMib, hostReserve, sandboxLimits } from "@wrenn/contract";
import { runUnchecked } from "@wrenn/system";
import { findOnPath } from "../setup/programs.ts";
import { type Examination, failed, ok, type Outcome, warning } from "./check.ts";

const mebibyte = 1_048_576;

export const machineExaminations: readonly Examination[] = [
  {
    name: "system",
    look: async () => {
      const release = (await readFile("/proc/sys/kernel/osrelease", "utf8")).trim();
      return judgeSystem({ platform: process.platform, arch: process.arch, release });
    },
  },
  {
    name: "root",
    look: async () =>
      process.geteuid?.() === 0
        ? ok("running as root")
        : failed("not running as root; what only root can see was not checked", "Run the same command with sudo."),
  },
  { name: "node", look: async () => judgeNode(process.versions.node) },
  { name: "memory", look: async () => judgeMemory(await readFile("/proc/meminfo", "utf8")) },
  {
    name: "clock",
    look: async () => {
      const builtAt = new Date((await stat(new URL(import.meta.url))).mtimeMs);
      return judgeClock({ now: new Date(), builtAt, synchronised: await isSynchronised() });
    },
  },
  { name: "open files", look: async () => judgeOpenFiles(await readFile("/proc/self/limits", "utf8")) },
];

export function judgeSystem({
  platform,
  arch,
  release,
}: {
  platform: string;
  arch: string;
  /** As `uname -r` has it. */
  release: string;
}): Outcome {
  const found = `${platform} ${arch}, kernel ${release}`;
  return platform === "linux" && arch === "x64" ? ok(found) : failed(found, "Use Linux on x86-64.");
}

/** @param version for instance `20.19.1` */
export function judgeNode(version: string): Outcome {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const supported = (major === 20 && minor >= 19) || (major === 22 && minor >= 12) || major >= 24;
  return supported ? ok(version) : failed(`${version} is not supported`, "Install Node.js 20.19, 22.12, 24 or newer.");
}

/** @param memInfo the content of /proc/meminfo */
export function judgeMemory(memInfo: string): Outcome {
  const availableMib = Math.floor(Number(/^MemAvailable:\s+(\d+) kB$/m.exec(memInfo)?.[1] ?? 0) / 1_024);
  const perSandbox = sandboxLimits.memoryMib.default + engineMemoryOverheadMib;
  const sandboxes = Math.max(0, Math.floor((availableMib - hostReserve.memoryMib) / perSandbox));
  const found = `${availableMib} MiB available, enough for ${sandboxes} sandboxes of the default size`;
  return sandboxes > 0 ? ok(found) : failed(found, "End what uses the memory, or use a machine with more.");
}

export interface ClockFacts {
  readonly now: Date;
  /** When this program was built: no clock can be right that is behind it. */
  readonly builtAt: Date;
  /** Whether something keeps it right; null where nothing tells. */
  readonly synchronised: boolean | null;
}

export function judgeClock({ now, builtAt, synchronised }: ClockFacts): Outcome {
  const why =
    "Guests take their clock from the host; one that is wrong makes certificates, hence every download, invalid.";
  const remedy = "timedatectl set-ntp true";
  const text = now.toISOString();
  if (now < builtAt)
    return failed(`${text} is before ${builtAt.toISOString()}, when this program was built`, remedy, why);
  if (synchronised === false) return warning(`${text}, and nothing keeps it right`, remedy, why);
  return ok(synchronised === true ? `${text}, synchronised` : `${text}; nothing here tells whether it is kept right`);
}

/** Asks whichever program keeps the clock; null where there is none, as in a container, whose clock is its host's. */
async function isSynchronised(): Promise<boolean | null> {
  if (await exists("/run/systemd/timesync/synchronized")) return true;
  if ((await findOnPath("chronyc")) !== null) {
    const { exitCode, stdout } = await runUnchecked("chronyc", ["-c", "tracking"]);
    if (exitCode === 0) return stdout.split(",").at(-1)?.trim() !== "Not synchronised";
  }
  if ((await exists("/run/systemd/system")) && (await findOnPath("timedatectl")) !== null) {
    const { exitCode, stdout } = await runUnchecked("timedatectl", ["show", "--property=NTPSynchronized", "--value"]);
    if (exitCode === 0) return stdout.trim() === "yes";
  }
  return null;
}

/** A host agent with some hundred sandboxes has, of each, an engine's socket, and a socket for every connection into it. */
const neededFiles = 8_192;

/** @param limits the content of /proc/self/limits; Node raises the soft limit to the hard one by itself */
export function judgeOpenFiles(limits: string): Outcome {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(limits)?.[1] ?? "unknown";
  const found = `at most ${hard} open files a process`;
  if (hard === "unlimited" || Number(hard) >= neededFiles) return ok(found);
  return warning(
    found,
    `ulimit -Hn 65536, or LimitNOFILE=65536 in the unit of the service`,
    "Every connection into a sandbox takes a descriptor in the control plane and two in the host agent.",
  );
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

export function inMebibytes(bytes: number): string {
  return `${Math.round(bytes / mebibyte)} MiB`;
}
