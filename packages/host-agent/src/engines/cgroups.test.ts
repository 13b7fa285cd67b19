import { pino } from "pino";
import { expect, it } from "vitest";
import { Cgroups, ownGroup, selectHierarchies } from "./cgroups.ts";

const log = pino({ level: "silent" });

const unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

const legacy = [
  "30 23 0:27 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro,mode=755",
  "31 30 0:28 / /sys/fs/cgroup/unified rw shared:5 - cgroup2 cgroup2 rw",
  "33 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct",
  "34 30 0:31 / /sys/fs/cgroup/memory rw shared:8 - cgroup cgroup rw,memory",
  "35 30 0:32 / /sys/fs/cgroup/freezer rw shared:9 - cgroup cgroup rw,freezer",
].join("\n");

it("uses the unified hierarchy for all that it offers", () => {
  expect(selectHierarchies(unified, "cpuset cpu io memory pids\n")).toEqual([
    { version: 2, mountPoint: "/sys/fs/cgroup", controllers: ["memory", "cpu", "pids"] },
  ]);
});

it("uses the hierarchy of each controller on a machine of the older kind", () => {
  expect(selectHierarchies(legacy, "hugetlb\n")).toEqual([
    { version: 1, mountPoint: "/sys/fs/cgroup/cpu,cpuacct", controllers: ["cpu"] },
    { version: 1, mountPoint: "/sys/fs/cgroup/memory", controllers: ["memory"] },
  ]);
});

it("uses both kinds where controllers are divided between them, each once", () => {
  expect(selectHierarchies(legacy, "pids memory")).toEqual([
    { version: 2, mountPoint: "/sys/fs/cgroup/unified", controllers: ["memory", "pids"] },
    { version: 1, mountPoint: "/sys/fs/cgroup/cpu,cpuacct", controllers: ["cpu"] },
  ]);
});

it("reports what a machine lacks", () => {
  const hierarchies = selectHierarchies(legacy, "");
  expect(new Cgroups(hierarchies, "test", log).missing).toEqual(["pids"]);
  expect(new Cgroups([], "test", log).missing).toEqual(["memory", "cpu", "pids"]);
});

it("finds nothing where there is nothing", () => {
  expect(selectHierarchies("", "")).toEqual([]);
  expect(selectHierarchies(unified, "")).toEqual([]);
});

it("finds the group that a process is in, in a hierarchy of either kind", () => {
  const text = "9:name=systemd:/init\n5:memory:/jobs/a:b\n2:cpu,cpuacct:/\n0::/unified\n";
  expect(ownGroup(text, { version: 1, controllers: ["memory"] })).toBe("/jobs/a:b");
  expect(ownGroup(text, { version: 1, controllers: ["cpu"] })).toBe("/");
  expect(ownGroup(text, { version: 2, controllers: ["pids"] })).toBe("/unified");
  expect(ownGroup(text, { version: 1, controllers: ["pids"] })).toBeNull();
});
