/** What each check concludes from what it was shown: facts go in, an outcome comes out, and no machine is looked at. */
import { describe, expect, it } from "vitest";
import type { CheckStatus, Outcome } from "./check.ts";
import { judgeEngine, judgeFirecracker, judgeKvm } from "./engine-checks.ts";
import {
  controllersOf,
  judgeCgroups,
  judgeDeviceMapper,
  judgeLoop,
  judgeModules,
  judgeUserfaultfd,
  type ModuleFacts,
} from "./kernel-checks.ts";
import { judgeClock, judgeMemory, judgeNode, judgeOpenFiles, judgeSystem } from "./machine-checks.ts";
import { needsOf } from "./needs.ts";
import { judgeFirewall, judgeNamespaces, judgeNftables, judgePort, judgeRouting, judgeTun } from "./network-checks.ts";
import { fileSystemOf, judgeFileSystem, judgeSpace } from "./storage-checks.ts";

const none = { firecracker: null, jailer: null };
const installed = { firecracker: "/usr/bin/firecracker", jailer: "/usr/bin/jailer" };

/** What the environment asks for, by how hosts are usually set up. */
const needs = {
  emulated: needsOf({ WRENN_ENGINE: "tcg" }, none),
  plain: needsOf({}, none),
  kvm: needsOf({ WRENN_ENGINE: "kvm" }, none),
  installed: needsOf({}, installed),
  demanded: needsOf({ WRENN_ENGINE: "firecracker" }, none),
} as const;
type Host = keyof typeof needs;

/** Whatever is wrong says what mends it, and nothing that is right says that it be mended. */
function conclusion({ status, finding, remedy }: Outcome): CheckStatus {
  const isWrong = status === "warning" || status === "failed";
  expect(finding).toMatch(/\S/);
  expect({ finding, hasRemedy: (remedy ?? "") !== "" }).toEqual({ finding, hasRemedy: isWrong });
  return status;
}

/** What the same facts come to on hosts that are set up for different engines. */
function byHost(judge: (host: (typeof needs)[Host]) => Outcome): Readonly<Record<string, CheckStatus>> {
  return Object.fromEntries(Object.entries(needs).map(([host, its]) => [host, conclusion(judge(its))]));
}

const allOk = { emulated: "ok", plain: "ok", kvm: "ok", installed: "ok", demanded: "ok" } as const;

describe("what is needed", () => {
  it("follows from what the environment demands and what is installed", () => {
    expect(needs.plain).toMatchObject({
      firecracker: "unneeded",
      kvm: "wanted",
      deviceMapper: "unneeded",
    });
    expect(needs.installed).toMatchObject({ firecracker: "wanted", kvm: "wanted", deviceMapper: "wanted" });
    expect(needs.demanded).toMatchObject({
      firecracker: "required",
      kvm: "required",
      deviceMapper: "required",
    });
    expect(needs.kvm).toMatchObject({ firecracker: "unneeded", kvm: "required" });
    expect(needs.emulated).toMatchObject({ firecracker: "unneeded", kvm: "unneeded" });
    expect(needsOf({ WRENN_DISKS: "dm-snapshot" }, none)).toMatchObject({
      firecracker: "unneeded",
      deviceMapper: "required",
    });
    expect(needsOf({ WRENN_DISKS: "qcow2" }, installed)).toMatchObject({
      firecracker: "unneeded",
      deviceMapper: "unneeded",
    });
  });
});

describe("the machine", () => {
  it.each(["20.19.0", "20.20.2", "22.12.0", "24.0.0", "25.1.0"])("runs Node %s, which is supported", (version) => {
    expect(conclusion(judgeNode(version))).toBe("ok");
  });

  it.each(["18.20.8", "20.18.3", "21.7.0", "22.11.0", "23.11.0"])(
    "runs Node %s, which is not, and is told what is",
    (version) => {
      expect(conclusion(judgeNode(version))).toBe("failed");
      expect(judgeNode(version).remedy).toContain("22.12");
    },
  );

  it("is Linux on x86-64", () => {
    expect(conclusion(judgeSystem({ platform: "linux", arch: "x64", release: "6.1.0" }))).toBe("ok");
    expect(conclusion(judgeSystem({ platform: "linux", arch: "arm64", release: "6.1.0" }))).toBe("failed");
  });

  it("has memory for a sandbox beside what the machine itself needs", () => {
    expect(conclusion(judgeMemory("MemTotal: 9 kB\nMemAvailable:    8000000 kB\n"))).toBe("ok");
    expect(conclusion(judgeMemory("MemAvailable:    900000 kB\n"))).toBe("failed");
  });

  it("has a clock that cannot be before the program was built, and that something keeps right", () => {
    const builtAt = new Date("2026-01-02T00:00:00Z");
    const later = new Date("2026-02-01T00:00:00Z");
    expect(conclusion(judgeClock({ now: later, builtAt, synchronised: true }))).toBe("ok");
    expect(conclusion(judgeClock({ now: later, builtAt, synchronised: null }))).toBe("ok");
    expect(conclusion(judgeClock({ now: later, builtAt, synchronised: false }))).toBe("warning");
    expect(conclusion(judgeClock({ now: new Date("1970-01-01T00:00:00Z"), builtAt, synchronised: true }))).toBe(
      "failed",
    );
  });

  it("lets a process open enough files", () => {
    const limits = (hard: string): string =>
      `Limit   Soft   Hard   Units\nMax open files            1024   ${hard}   files\n`;
    expect(conclusion(judgeOpenFiles(limits("1048576")))).toBe("ok");
    expect(conclusion(judgeOpenFiles(limits("unlimited")))).toBe("ok");
    expect(conclusion(judgeOpenFiles(limits("4096")))).toBe("warning");
  });
});

describe("storage", () => {
  it("has room to set up, or at least to run", () => {
    expect(conclusion(judgeSpace("/srv", 10 * 2 ** 30))).toBe("ok");
    expect(conclusion(judgeSpace("/srv", 1.5 * 2 ** 30))).toBe("warning");
    expect(conclusion(judgeSpace("/srv", 10 * 2 ** 20))).toBe("failed");
  });

  it("lies on what a restart leaves, and says where copies are cheap", () => {
    expect(judgeFileSystem("/srv", "xfs").finding).toContain("by reference");
    for (const type of ["xfs", "btrfs", "ext4", "unknown"])
      expect(conclusion(judgeFileSystem("/srv", type))).toBe("ok");
    for (const type of ["tmpfs", "nfs4"]) expect(conclusion(judgeFileSystem("/srv", type))).toBe("warning");
  });

  it("is told by the mount that a path lies below, of several on one place by the last", () => {
    const mounts = [
      "20 1 8:1 / / rw - ext4 /dev/a rw",
      "21 20 8:2 / /srv rw - xfs /dev/b rw",
      "22 20 8:3 / /srv rw - btrfs /dev/c rw",
      "23 20 8:4 / /srv-other rw - tmpfs none rw",
    ].join("\n");
    expect(fileSystemOf("/srv/wrenn", mounts)).toBe("btrfs");
    expect(fileSystemOf("/srv-other", mounts)).toBe("tmpfs");
    expect(fileSystemOf("/var/lib/wrenn", mounts)).toBe("ext4");
  });
});

describe("engines", () => {
  it("Firecracker and its jailer are needed where Firecracker is demanded, and wanted where one of them is installed", () => {
    const missing = {
      emulated: "unneeded",
      plain: "unneeded",
      kvm: "unneeded",
      installed: "warning",
      demanded: "failed",
    } as const;
    const found = { version: "1.16.1", path: "/usr/bin/firecracker", jailer: "/usr/bin/jailer" };
    expect(byHost((host) => judgeFirecracker(found, host))).toEqual({ ...missing, installed: "ok", demanded: "ok" });
    const problem = { problem: "there is no jailer", remedy: "Install one." };
    expect(byHost((host) => judgeFirecracker(problem, host))).toEqual(missing);
  });

  it("KVM counts when a guest has booted in it; a device that opens is no proof of the contrary", () => {
    const hangs = { usable: false, reason: "/dev/kvm opens, but a guest kernel hangs in it." };
    const works = { usable: true, reason: "KVM works: a guest kernel booted in it." };
    expect(byHost((host) => judgeKvm({ device: "usable", verdict: works }, host))).toEqual(allOk);
    expect(byHost((host) => judgeKvm({ device: "usable", verdict: null }, host))).toEqual(allOk);
    for (const facts of [
      { device: "usable", verdict: hangs },
      { device: "closed", verdict: null },
      { device: "absent", verdict: null },
    ] as const) {
      expect(byHost((host) => judgeKvm(facts, host))).toEqual({
        emulated: "unneeded",
        plain: "warning",
        kvm: "failed",
        installed: "warning",
        demanded: "failed",
      });
    }
  });

  it("the one in use is what the host agent says", () => {
    expect(conclusion(judgeEngine(null))).toBe("ok");
    expect(judgeEngine({ engine: "qemu-kvm", version: "7.2.22", reason: "KVM works." }).finding).toBe(
      "qemu-kvm 7.2.22: KVM works.",
    );
    expect(conclusion(judgeEngine({ engine: "", version: "", reason: "There is no QEMU." }))).toBe("failed");
  });
});

describe("the kernel", () => {
  const facts = (given: Partial<Record<keyof ModuleFacts, string[]>>): ModuleFacts => ({
    loaded: new Set(given.loaded),
    builtIn: new Set(given.builtIn),
    drivers: new Set(given.drivers),
    loadable: new Set(given.loadable),
    atBoot: new Set(given.atBoot),
  });

  it("has modules loaded or built in, and loads them at its next start", () => {
    expect(conclusion(judgeModules(facts({ builtIn: ["tun"] }), needs.plain))).toBe("ok");
    expect(conclusion(judgeModules(facts({ drivers: ["tun"] }), needs.plain))).toBe("ok");
    expect(conclusion(judgeModules(facts({ loaded: ["tun"], atBoot: ["tun"] }), needs.plain))).toBe("ok");
    const byHand = judgeModules(facts({ loaded: ["tun"] }), needs.plain);
    expect(conclusion(byHand)).toBe("warning");
    expect(byHand.remedy).toBe("modprobe -a tun && printf '%s\\n' tun >> /etc/modules-load.d/wrenn.conf");
    expect(conclusion(judgeModules(facts({ loadable: ["tun"] }), needs.plain))).toBe("warning");
    const absent = judgeModules(facts({}), needs.plain);
    expect(conclusion(absent)).toBe("failed");
    expect(absent.remedy).toContain("modprobe -a tun &&");
  });

  it("needs those of device-mapper only where disks are made of it", () => {
    expect(byHost((host) => judgeModules(facts({ drivers: ["tun"] }), host))).toEqual({
      ...allOk,
      installed: "warning",
      demanded: "failed",
    });
    const everything = facts({ loaded: ["tun", "loop", "dm_snapshot"], atBoot: ["tun", "loop", "dm_snapshot"] });
    expect(byHost((host) => judgeModules(everything, host))).toEqual(allOk);
  });

  it("has loop devices and device-mapper with snapshots, where they are needed", () => {
    const missing = {
      emulated: "unneeded",
      plain: "unneeded",
      kvm: "unneeded",
      installed: "warning",
      demanded: "failed",
    } as const;
    expect(byHost((host) => judgeLoop(true, host))).toEqual(allOk);
    expect(byHost((host) => judgeLoop(false, host))).toEqual(missing);
    expect(
      byHost((host) => judgeDeviceMapper({ program: true, targets: new Set(["linear", "snapshot"]) }, host)),
    ).toEqual(allOk);
    for (const broken of [
      { program: true, targets: null },
      { program: true, targets: new Set(["linear"]) },
      { program: false, targets: new Set<string>() },
      { program: false, targets: null },
    ]) {
      expect(byHost((host) => judgeDeviceMapper(broken, host))).toEqual(missing);
    }
  });

  it("tells cgroup hierarchies apart by the mounts in effect, and says which controllers are missing", () => {
    const mountInfo = [
      "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
      "31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
      "32 24 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
    ].join("\n");
    const { older, unifiedMount } = controllersOf(mountInfo);
    expect(unifiedMount).toBe("/sys/fs/cgroup/unified");
    expect(older).toEqual(expect.arrayContaining(["memory", "cpu"]));
    expect(judgeCgroups({ mountInfo, unified: "pids" }).finding).toBe("memory, cpu, pids (v1 and v2)");
    const without = judgeCgroups({ mountInfo, unified: "" });
    expect(conclusion(without)).toBe("warning");
    expect(without.finding).toContain("pids");
  });

  it("serves memory by its device, whatever the older setting says", () => {
    expect(conclusion(judgeUserfaultfd({ device: true, sysctl: false }))).toBe("ok");
    expect(conclusion(judgeUserfaultfd({ device: false, sysctl: true }))).toBe("warning");
  });
});

describe("the network", () => {
  const worked = { exitCode: 0, stdout: "table inet a\n", stderr: "" };
  const refused = { exitCode: 1, stdout: "", stderr: "Operation not permitted\n" };

  it("needs taps, namespaces and rules", () => {
    expect(conclusion(judgeTun(true))).toBe("ok");
    expect(conclusion(judgeTun(false))).toBe("failed");
    expect(conclusion(judgeNamespaces(worked))).toBe("ok");
    expect(conclusion(judgeNamespaces(refused))).toBe("failed");
    expect(conclusion(judgeNftables(worked))).toBe("ok");
    expect(conclusion(judgeNftables(refused))).toBe("failed");
    expect(judgeNftables(refused).finding).toContain("Operation not permitted");
  });

  it("is routed by the host agent itself, and may be cut off by another firewall", () => {
    for (const setting of ["1\n", "0\n"]) expect(conclusion(judgeRouting(setting))).toBe("ok");
    expect(conclusion(judgeFirewall(null))).toBe("ok");
    expect(conclusion(judgeFirewall("The chain forward of another table drops what comes from sandboxes."))).toBe(
      "warning",
    );
  });

  it("leaves the server's port to the server", () => {
    expect(conclusion(judgePort({ listen: "127.0.0.1:7070", state: "free" }))).toBe("ok");
    expect(conclusion(judgePort({ listen: "127.0.0.1:7070", state: "ours" }))).toBe("ok");
    expect(conclusion(judgePort({ listen: "127.0.0.1:7070", state: "taken" }))).toBe("failed");
    expect(
      conclusion(judgePort({ listen: "nowhere", state: "not an address", problem: "nowhere is no address" })),
    ).toBe("failed");
  });
});
