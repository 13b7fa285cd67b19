/**
 * Limits on what an engine's process may take of its host, by control groups: the unified hierarchy (v2), the older one per
 * controller (v1), or a mixture. A controller that the machine lacks is reported and done without.
 */
import { readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { hasErrno, isMissingFile, makeDirectory, pollUntil } from "@wrenn/system";
import type { BaseLogger } from "pino";
import { isContained } from "./contained.ts";

export const cgroupControllers = ["memory", "cpu", "pids"] as const;
export type CgroupController = (typeof cgroupControllers)[number];

export interface CgroupLimits {
  readonly memoryMib: number;
  /** Processors' worth of time, for instance 1.5. */
  readonly cpus: number;
  readonly pids: number;
}

/** The files that a process writes its pid to in order to join. */
export interface CgroupMembership {
  readonly procsFiles: readonly string[];
}

/** Where a controller can be used: its mount point, and which of the two interfaces it speaks there. */
export interface CgroupHierarchy {
  readonly version: 1 | 2;
  readonly mountPoint: string;
  readonly controllers: readonly CgroupController[];
}

/** The kernel's default period; quotas are in microseconds per period. */
const cpuPeriodUs = 100_000;

/** A process that has been killed leaves its cgroup a moment after its parent sees it go. */
const emptyCgroupMs = 5_000;

/**
 * Which hierarchy to use for each controller.
 * @param mountInfo the content of /proc/self/mountinfo (proc(5))
 * @param unifiedControllers the content of cgroup.controllers at the root of the v2 mount, empty when there is none
 */
export function selectHierarchies(mountInfo: string, unifiedControllers: string): CgroupHierarchy[] {
  const chosen: CgroupHierarchy[] = [];
  const taken = new Set<CgroupController>();
  const unified = unifiedControllers.trim().split(/\s+/);
  for (const mount of parseMounts(mountInfo)) {
    const available = mount.type === "cgroup2" ? unified : mount.type === "cgroup" ? mount.superOptions : [];
    const controllers = cgroupControllers.filter((name) => available.includes(name) && !taken.has(name));
    if (controllers.length === 0) continue;
    for (const name of controllers) taken.add(name);
    chosen.push({ version: mount.type === "cgroup2" ? 2 : 1, mountPoint: mount.mountPoint, controllers });
  }
  return chosen;
}

export class Cgroups {
  readonly #hierarchies: readonly CgroupHierarchy[];
  readonly #group: string;
  readonly #log: Pick<BaseLogger, "warn" | "debug">;
  /** Controllers that took no limit when a group was made. */
  readonly #refused = new Set<CgroupController>();

  /** @param instance tells the groups of one WRENN_DIR from another's */
  constructor(hierarchies: readonly CgroupHierarchy[], instance: string, log: Pick<BaseLogger, "warn" | "debug">) {
    this.#hierarchies = hierarchies;
    this.#log = log;
    this.#group = path.join("wrenn", instance);
  }

  /** Finds the hierarchies and makes this instance's group in each; one that cannot be used is left out. */
  static async open(instance: string, log: Pick<BaseLogger, "warn" | "debug">): Promise<Cgroups> {
    const mountInfo = await readFile("/proc/self/mountinfo", "utf8");
    const unifiedMount = parseMounts(mountInfo).find((mount) => mount.type === "cgroup2")?.mountPoint;
    const unified = unifiedMount === undefined ? "" : await readIfThere(path.join(unifiedMount, "cgroup.controllers"));
    const usable: CgroupHierarchy[] = [];
    for (const hierarchy of selectHierarchies(mountInfo, unified)) {
      const controllers = await makeGroups(hierarchy, ["wrenn", path.join("wrenn", instance)]);
      if (controllers.length > 0) usable.push({ ...hierarchy, controllers });
    }
    return new Cgroups(usable, instance, log);
  }

  /** Controllers that this machine lacks or withholds; their limits are not applied. */
  get missing(): CgroupController[] {
    const there = this.#hierarchies.flatMap(({ controllers }) => controllers);
    return cgroupControllers.filter((name) => !there.includes(name) || this.#refused.has(name));
  }

  async create(name: string, limits: CgroupLimits): Promise<CgroupMembership> {
    const procsFiles: string[] = [];
    for (const hierarchy of this.#hierarchies) {
      const directory = this.#directory(hierarchy, name);
      await makeDirectory(directory);
      for (const controller of hierarchy.controllers) await this.#limit(hierarchy, directory, controller, limits);
      procsFiles.push(path.join(directory, "cgroup.procs"));
    }
    return { procsFiles };
  }

  /**
   * Says that a process is about to join a group. The first to join after a while waits about 10 ms for the kernel, which has to see every
   * processor pass through (percpu_down_write in cgroup_attach_lock); those that follow do not. So this process joins a group that it
   * is in already, while other things are done. Nothing is promised: a failure costs that time and nothing else.
   */
  async expectMember(): Promise<void> {
    const [hierarchy] = this.#hierarchies;
    if (hierarchy === undefined) return;
    try {
      const own = ownGroup(await readFile("/proc/self/cgroup", "utf8"), hierarchy);
      if (own === null) return;
      await writeFile(path.join(hierarchy.mountPoint, own, "cgroup.procs"), String(process.pid), { flag: "r+" });
    } catch (error) {
      this.#log.debug({ err: error }, "could not prepare for a process to join a control group");
    }
  }

  /** Removes the group, and ends whatever is still in it; that it is gone already is no error. */
  async remove(name: string): Promise<void> {
    for (const hierarchy of this.#hierarchies) await removeGroup(this.#directory(hierarchy, name));
  }

  /** The names of all groups of this instance. */
  async list(): Promise<string[]> {
    const names = new Set<string>();
    for (const hierarchy of this.#hierarchies) {
      for (const entry of await readdir(this.#directory(hierarchy, ""), { withFileTypes: true })) {
        if (entry.isDirectory()) names.add(entry.name);
      }
    }
    return [...names];
  }

  /** Removes this instance's own groups, unless sandboxes are still in them. */
  async close(): Promise<void> {
    for (const hierarchy of this.#hierarchies) {
      for (const directory of [this.#directory(hierarchy, ""), path.join(hierarchy.mountPoint, "wrenn")]) {
        try {
          await rmdir(directory);
        } catch (error) {
          const inUse = hasErrno(error, "EBUSY") || hasErrno(error, "ENOTEMPTY");
          if (!inUse && !isMissingFile(error)) throw error;
        }
      }
    }
  }

  async #limit(
    hierarchy: CgroupHierarchy,
    directory: string,
    controller: CgroupController,
    limits: CgroupLimits,
  ): Promise<void> {
    try {
      for (const { file, value, optional } of settings(hierarchy.version, controller, limits)) {
        await writeSetting(path.join(directory, file), value, optional);
      }
    } catch (error) {
      // A kernel without quotas, or (v1) a group above with less time than this one asks for, as a container may have.
      if (controller !== "cpu" || !(hasErrno(error, "EINVAL") || isMissingFile(error))) throw error;
      if (!this.#refused.has(controller)) this.#log.warn({ controller, err: error }, "engines run without this limit");
      this.#refused.add(controller);
    }
  }

  #directory(hierarchy: CgroupHierarchy, name: string): string {
    return path.join(hierarchy.mountPoint, this.#group, name);
  }
}

/**
 * Which group of a hierarchy a process is in, relative to the hierarchy's root.
 * @param cgroups the content of /proc/PID/cgroup (cgroups(7)): `number:controllers:path`, without controllers for v2
 */
export function ownGroup(
  cgroups: string,
  { version, controllers }: Omit<CgroupHierarchy, "mountPoint">,
): string | null {
  for (const line of cgroups.split("\n")) {
    const [, names = "", ...rest] = line.split(":");
    const found = version === 2 ? names === "" : controllers.some((name) => names.split(",").includes(name));
    if (found && rest.length > 0) return rest.join(":");
  }
  return null;
}

interface Mount {
  readonly type: string;
  readonly mountPoint: string;
  readonly superOptions: readonly string[];
}

function parseMounts(mountInfo: string): Mount[] {
  return mountInfo.split("\n").flatMap((line) => {
    const [before, after] = line.split(" - ");
    const mountPoint = before?.split(" ")[4];
    const [type, , superOptions] = after?.split(" ") ?? [];
    if (mountPoint === undefined || type === undefined || superOptions === undefined) return [];
    return [{ type, mountPoint, superOptions: superOptions.split(",") }];
  });
}

/** Makes nested groups and, in v2, hands the controllers down to them. Returns the controllers that reach the last. */
async function makeGroups(hierarchy: CgroupHierarchy, groups: readonly string[]): Promise<CgroupController[]> {
  let controllers = [...hierarchy.controllers];
  let parent = hierarchy.mountPoint;
  try {
    for (const group of groups) {
      if (hierarchy.version === 2) controllers = await delegate(parent, controllers);
      parent = path.join(hierarchy.mountPoint, group);
      await makeDirectory(parent);
    }
    return hierarchy.version === 2 ? await delegate(parent, controllers) : controllers;
  } catch (error) {
    // A read-only or foreign hierarchy, as in many containers.
    if (hasErrno(error, "EROFS") || hasErrno(error, "EACCES") || hasErrno(error, "EPERM")) return [];
    throw error;
  }
}

async function delegate(directory: string, controllers: readonly CgroupController[]): Promise<CgroupController[]> {
  const delegated: CgroupController[] = [];
  for (const controller of controllers) {
    try {
      await writeFile(path.join(directory, "cgroup.subtree_control"), `+${controller}`);
      delegated.push(controller);
    } catch {
      // Not delegated to this machine, or the group above holds processes: reported as missing.
    }
  }
  return delegated;
}

interface Setting {
  readonly file: string;
  readonly value: string;
  /** Whether there are kernels without this file that limit enough all the same. */
  readonly optional: boolean;
}

function settings(version: 1 | 2, controller: CgroupController, limits: CgroupLimits): Setting[] {
  const required = (file: string, value: string): Setting => ({ file, value, optional: false });
  const memoryBytes = String(limits.memoryMib * 1_048_576);
  const quotaUs = Math.round(limits.cpus * cpuPeriodUs);
  switch (controller) {
    case "memory":
      // Without a limit on swap, an engine at its limit of memory would fill the host's swap instead. Older kernels count both together.
      return version === 2
        ? [required("memory.max", memoryBytes), { file: "memory.swap.max", value: "0", optional: true }]
        : [
            required("memory.limit_in_bytes", memoryBytes),
            { file: "memory.memsw.limit_in_bytes", value: memoryBytes, optional: true },
          ];
    case "cpu":
      return version === 2
        ? [required("cpu.max", `${quotaUs} ${cpuPeriodUs}`)]
        : [required("cpu.cfs_quota_us", String(quotaUs))];
    case "pids":
      return [required("pids.max", String(limits.pids))];
    default:
      return controller satisfies never;
  }
}

async function writeSetting(file: string, value: string, optional: boolean): Promise<void> {
  try {
    // Not created: the kernel would refuse that with the error of a missing permission.
    await writeFile(file, value, { flag: "r+" });
  } catch (error) {
    if (!optional || !isMissingFile(error)) throw error;
  }
}

async function removeGroup(directory: string): Promise<void> {
  let lastError: unknown;
  const removed = await pollUntil(
    async () => {
      try {
        await rmdir(directory);
        return true;
      } catch (error) {
        if (isMissingFile(error)) return true;
        if (!hasErrno(error, "EBUSY")) throw error;
        lastError = error;
        await killMembers(directory);
        return null;
      }
    },
    { timeoutMs: emptyCgroupMs },
  );
  if (removed === null) throw lastError;
}

/** Ends processes that are known by nothing but the group they are in, save those of a container that shares this machine's cgroups. */
async function killMembers(directory: string): Promise<void> {
  const members = await readIfThere(path.join(directory, "cgroup.procs"));
  for (const pid of members.split("\n").map(Number)) {
    // 0 stands for a process that cannot be seen from here, and 1 is not ours to end.
    if (pid <= 1 || (await isContained(pid))) continue;
    try {
      process.kill(pid, "SIGKILL");
    } catch (error) {
      if (!hasErrno(error, "ESRCH")) throw error;
    }
  }
}

async function readIfThere(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (isMissingFile(error)) return "";
    throw error;
  }
}
