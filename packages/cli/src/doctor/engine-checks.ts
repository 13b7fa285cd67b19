/** What runs the VMs: QEMU, KVM and the limits a VM is held by. */
import { access, constants, readFile } from "node:fs/promises";
import path from "node:path";
import { detectQemu, readKvmVerdict, servesPages } from "@wrenn/host-agent";
import { isMissingFile, type Layout, run } from "@wrenn/system";
import { type Examination, ok, type Outcome, warning } from "./check.ts";

const emulation = "guests are emulated in software, several times slower";

export const engineExaminations: readonly Examination[] = [
  {
    name: "qemu",
    look: async () => {
      const { path, version } = await detectQemu(process.env["WRENN_QEMU_BIN"]);
      return ok(`${version} (${path})`);
    },
  },
  {
    name: "qemu-img",
    look: async () => ok((await run("qemu-img", ["--version"])).stdout.split("\n")[0] ?? ""),
  },
  { name: "kvm", look: checkKvm },
  { name: "cgroups", look: checkCgroups },
  { name: "userfaultfd", look: checkUserfaultfd },
];

async function checkKvm(layout: Layout): Promise<Outcome> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch (error) {
    return isMissingFile(error)
      ? warning(
          `no /dev/kvm: ${emulation}`,
          "Use a machine with hardware virtualisation, or enable nested virtualisation.",
        )
      : warning(
          `/dev/kvm cannot be opened: ${emulation}`,
          "Run Wrenn as root, and allow the device to this container.",
        );
  }
  const verdict = await readKvmVerdict(layout);
  if (verdict === null) return ok("/dev/kvm is there; the first start of the server tries whether a guest boots in it");
  return verdict.usable
    ? ok(verdict.reason)
    : warning(verdict.reason, "Use a machine whose KVM works; software emulation needs nothing.");
}

const neededControllers = ["memory", "cpu", "pids"] as const;

async function checkCgroups(): Promise<Outcome> {
  const mountInfo = await readFile("/proc/self/mountinfo", "utf8");
  const found = controllersOf(mountInfo);
  const unified =
    found.unifiedMount === null ? "" : await readText(path.join(found.unifiedMount, "cgroup.controllers"));
  const available = new Set([...found.older, ...unified.trim().split(/\s+/)]);
  const missing = neededControllers.filter((name) => !available.has(name));
  const kind = found.older.length === 0 ? "v2" : found.unifiedMount === null ? "v1" : "v1 and v2";
  return missing.length === 0
    ? ok(`${neededControllers.join(", ")} (${kind})`)
    : warning(
        `no controller for ${missing.join(", ")} (${kind}): sandboxes are not limited in these`,
        "Mount the cgroup hierarchies: mount -t cgroup2 none /sys/fs/cgroup",
      );
}

/** Controllers mounted in the older hierarchies, and where the unified one is mounted (proc(5), cgroups(7)). */
export function controllersOf(mountInfo: string): { older: string[]; unifiedMount: string | null } {
  const older: string[] = [];
  let unifiedMount: string | null = null;
  for (const line of mountInfo.split("\n")) {
    const [before = "", after = ""] = line.split(" - ");
    const [type, , superOptions = ""] = after.split(" ");
    if (type === "cgroup") older.push(...superOptions.split(","));
    if (type === "cgroup2") unifiedMount ??= before.split(" ")[4] ?? null;
  }
  return { older, unifiedMount };
}

/** Nothing needs it yet; restoring memory lazily will. */
async function checkUserfaultfd(): Promise<Outcome> {
  if (await servesPages()) return ok("by /dev/userfaultfd: a resumed sandbox gets its memory page by page");
  return warning(
    "no /dev/userfaultfd: a sandbox's frozen memory is read whole, or folded into one file, before it is resumed, which takes longer",
    "Use Linux 6.1 or newer.",
  );
}

async function readText(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (isMissingFile(error)) return "";
    throw error;
  }
}
