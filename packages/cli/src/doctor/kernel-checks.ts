/** What Wrenn asks of the kernel: parts that may be modules, device-mapper, control groups, userfaultfd. */
import { access, constants, readFile } from "node:fs/promises";
import path from "node:path";
import { servesPages } from "@wrenn/host-agent";
import { isMissingFile, runUnchecked } from "@wrenn/system";
import { findOnPath } from "../setup/programs.ts";
import { type Examination, ok, type Outcome, warning } from "./check.ts";
import { missing, type Need, type Needs } from "./needs.ts";

export const kernelExaminations: readonly Examination[] = [
  { name: "modules", look: async (_layout, needs) => judgeModules(await lookAtModules(), needs) },
  { name: "loop devices", look: async (_layout, needs) => judgeLoop(await isThere("/dev/loop-control"), needs) },
  { name: "device-mapper", look: async (_layout, needs) => judgeDeviceMapper(await lookAtDeviceMapper(), needs) },
  { name: "cgroups", look: async () => judgeCgroups(await lookAtCgroups()) },
  {
    name: "userfaultfd",
    look: async () =>
      judgeUserfaultfd({
        device: await servesPages(),
        sysctl: (await readText("/proc/sys/vm/unprivileged_userfaultfd")).trim() === "1",
      }),
  },
];

export interface ModuleFacts {
  /** As /proc/modules and /sys/module have them, with underscores. */
  readonly loaded: ReadonlySet<string>;
  readonly builtIn: ReadonlySet<string>;
  /** Drivers that are there, however they came: as /proc/misc has them. */
  readonly drivers: ReadonlySet<string>;
  /** Those that the kernel, or a host agent that may load modules, can still load. */
  readonly loadable: ReadonlySet<string>;
  /** What /etc/modules-load.d has loaded at every start. */
  readonly atBoot: ReadonlySet<string>;
}

/** Modules that nothing loads by itself when they are first needed in a confined place, and by what else one sees that they are there. */
function modulesFor(needs: Needs): { module: string; driver: string; need: Need }[] {
  return [
    { module: "tun", driver: "tun", need: "required" },
    { module: "loop", driver: "loop-control", need: needs.deviceMapper },
    { module: "dm_snapshot", driver: "", need: needs.deviceMapper },
  ];
}

export function judgeModules({ loaded, builtIn, drivers, loadable, atBoot }: ModuleFacts, needs: Needs): Outcome {
  const wanted = modulesFor(needs).filter(({ need }) => need !== "unneeded");
  const states = wanted.map(({ module, driver }) => ({
    module,
    state: builtIn.has(module)
      ? ("built in" as const)
      : loaded.has(module) || drivers.has(driver)
        ? ("there" as const)
        : loadable.has(module)
          ? ("not loaded" as const)
          : ("absent" as const),
  }));
  const absent = states.filter(({ state }) => state === "absent").map(({ module }) => module);
  const found = states.map(({ module, state }) => `${module} ${state}`).join(", ");
  const keep = ">> /etc/modules-load.d/wrenn.conf";
  if (absent.length > 0) {
    const need = wanted.some((one) => one.need === "required" && absent.includes(one.module)) ? "required" : "wanted";
    return missing(need, {
      finding: found,
      why: "Without them taps or disks cannot be made.",
      remedy: `modprobe -a ${absent.join(" ")} && printf '%s\\n' ${absent.join(" ")} ${keep}`,
      unneeded: "",
    });
  }
  // A driver that cannot be unloaded is there at the next start too; of one that was loaded by hand nobody knows.
  const chance = states.filter(
    ({ module, state }) => state === "not loaded" || (state === "there" && loaded.has(module) && !atBoot.has(module)),
  );
  if (chance.length === 0) return ok(found);
  const names = chance.map(({ module }) => module).join(" ");
  return warning(
    `${found}; nothing loads ${names} when the machine starts`,
    `modprobe -a ${names} && printf '%s\\n' ${names} ${keep}`,
    "A host agent that may not load modules itself would start no sandboxes after the machine's next start.",
  );
}

async function lookAtModules(): Promise<ModuleFacts> {
  const release = (await readText("/proc/sys/kernel/osrelease")).trim();
  const builtIn = await readText(`/lib/modules/${release}/modules.builtin`);
  const { stdout: configured } = await runUnchecked("sh", [
    "-c",
    "cat /etc/modules /etc/modules-load.d/*.conf /usr/lib/modules-load.d/*.conf 2>/dev/null || true",
  ]);
  return {
    loaded: wordsOf(await readText("/proc/modules"), (line) => line.split(" ")[0]),
    builtIn: wordsOf(builtIn, (line) => path.basename(line).replace(/\.ko$/, "").replaceAll("-", "_")),
    loadable: wordsOf(await readText(`/lib/modules/${release}/modules.dep`), (line) =>
      path
        .basename(line.split(":")[0] ?? "")
        .replace(/\.ko.*$/, "")
        .replaceAll("-", "_"),
    ),
    drivers: wordsOf(await readText("/proc/misc"), (line) => line.trim().split(/\s+/)[1]),
    atBoot: wordsOf(configured, (line) => line.trim().replaceAll("-", "_")),
  };
}

function wordsOf(text: string, wordOf: (line: string) => string | undefined): Set<string> {
  return new Set(text.split("\n").flatMap((line) => wordOf(line) ?? []));
}

export function judgeLoop(isThere: boolean, needs: Needs): Outcome {
  if (isThere) return ok("/dev/loop-control");
  return missing(needs.deviceMapper, {
    finding: "no /dev/loop-control",
    why: "Disks of device-mapper lie on loop devices.",
    remedy: "modprobe loop, or allow the devices to this container",
    unneeded: needs.withoutFirecracker,
  });
}

export interface DeviceMapperFacts {
  /** Whether `dmsetup` is installed. */
  readonly program: boolean;
  /** What the kernel can make devices of; null where there is no device-mapper. */
  readonly targets: ReadonlySet<string> | null;
}

export function judgeDeviceMapper({ program, targets }: DeviceMapperFacts, needs: Needs): Outcome {
  const problem = (finding: string, remedy: string): Outcome =>
    missing(needs.deviceMapper, {
      finding,
      why: "Firecracker opens block devices, which device-mapper makes of layered disks.",
      remedy,
      unneeded: needs.withoutFirecracker,
    });
  if (targets === null && !program)
    return problem("no dmsetup, and no device-mapper seen", "apt-get install dmsetup && modprobe dm_snapshot");
  if (!program) return problem("no dmsetup", "apt-get install dmsetup");
  if (targets === null)
    return problem("the kernel has no device-mapper", "modprobe dm_snapshot, or use a kernel with CONFIG_DM_SNAPSHOT");
  if (!targets.has("snapshot")) return problem("device-mapper has no snapshots", "modprobe dm_snapshot");
  return ok("snapshots of block devices can be made");
}

async function lookAtDeviceMapper(): Promise<DeviceMapperFacts> {
  if ((await findOnPath("dmsetup")) === null) {
    return { program: false, targets: (await isThere("/dev/mapper/control")) ? new Set() : null };
  }
  const { exitCode, stdout } = await runUnchecked("dmsetup", ["targets"]);
  return { program: true, targets: exitCode === 0 ? wordsOf(stdout, (line) => line.split(/\s+/)[0]) : null };
}

const neededControllers = ["memory", "cpu", "pids"] as const;

export interface CgroupFacts {
  /** The content of /proc/self/mountinfo. */
  readonly mountInfo: string;
  /** The content of cgroup.controllers at the root of the unified hierarchy. */
  readonly unified: string;
}

export function judgeCgroups({ mountInfo, unified }: CgroupFacts): Outcome {
  const found = controllersOf(mountInfo);
  const available = new Set([...found.older, ...unified.trim().split(/\s+/)]);
  const lacking = neededControllers.filter((name) => !available.has(name));
  const kind = found.older.length === 0 ? "v2" : found.unifiedMount === null ? "v1" : "v1 and v2";
  if (lacking.length === 0) return ok(`${neededControllers.join(", ")} (${kind})`);
  return warning(
    `no controller for ${lacking.join(", ")} (${kind})`,
    "mount -t cgroup2 none /sys/fs/cgroup; or give this container groups of its own",
    "An engine that a guest has taken over could use all that the machine has of these.",
  );
}

async function lookAtCgroups(): Promise<CgroupFacts> {
  const mountInfo = await readFile("/proc/self/mountinfo", "utf8");
  const { unifiedMount } = controllersOf(mountInfo);
  return {
    mountInfo,
    unified: unifiedMount === null ? "" : await readText(path.join(unifiedMount, "cgroup.controllers")),
  };
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

/** @param facts.sysctl whether vm.unprivileged_userfaultfd is on, which Wrenn does not need and does not use */
export function judgeUserfaultfd({ device, sysctl }: { device: boolean; sysctl: boolean }): Outcome {
  if (device) return ok("by /dev/userfaultfd: a resumed sandbox gets its memory page by page");
  return warning(
    `no /dev/userfaultfd${sysctl ? ", and vm.unprivileged_userfaultfd is no substitute" : ""}`,
    "Use Linux 6.1 or newer, and allow the device to this container.",
    "A sandbox's frozen memory is read whole, or folded into one file, before it is resumed, which takes longer.",
  );
}

async function isThere(file: string): Promise<boolean> {
  return access(file, constants.R_OK).then(
    () => true,
    () => false,
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
