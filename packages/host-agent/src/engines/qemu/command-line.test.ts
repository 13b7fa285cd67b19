import { expect, it } from "vitest";
import {
  guestCpu,
  guestKernelArguments,
  machineLine,
  qemuArguments,
  type QemuMachine,
  tscKhzFromCpuInfo,
} from "./command-line.ts";

const machine: QemuMachine = {
  name: "a-sandbox",
  accelerator: "tcg",
  vcpus: 2,
  memoryMib: 512,
  start: { from: "boot", kernel: "/boot/vmlinuz", initramfs: "/boot/initramfs.cpio", kernelArguments: ["quiet"] },
  disk: { path: "/sandboxes/one/overlay.qcow2", format: "qcow2" },
  tap: "tap0",
  qmpSocket: "/sandboxes/one/qmp.sock",
};

it("emulates a microvm whose cache of translated code is bounded", () => {
  const args = qemuArguments(machine).join(" ");
  expect(args).toContain("-cpu max -smp 2 -m 512M -accel tcg,thread=multi,tb-size=160");
  expect(args).toContain("-append console=ttyS0 quiet");
});

it("gives guests the host's processor under KVM", () => {
  expect(qemuArguments({ ...machine, accelerator: "kvm" }).join(" ")).toContain("-cpu host -smp 2 -m 512M -accel kvm");
});

it("loads neither kernel nor initramfs into a guest that was frozen", () => {
  const args = qemuArguments({ ...machine, start: { from: "frozen", deviceState: 5 } }).join(" ");
  expect(args).toContain("-global migration.send-configuration=off -incoming fd:5");
  expect(args).not.toMatch(/-kernel|-initrd|-append/);
});

it("names all that a frozen guest depends on, and nothing that differs from one VM to the next", () => {
  const line = machineLine(machine);
  expect(line).toBe(
    "-M microvm,memory-backend=mem,mem-merge=off,rtc=on -object memory-backend-ram,id=mem,size=512M -cpu max -smp 2 -m 512M " +
      "-serial chardev:console -device virtio-blk-device,drive=disk0 -device virtio-net-device,netdev=net0,mac=06:00:a9:fe:00:15",
  );
  const args = qemuArguments(machine);
  expect(line.split(" ").filter((argument) => !args.includes(argument))).toEqual([]);
});

it("tells guests' processors apart by what they can see of the host's", () => {
  const host = (clock: string, stepping: number): string =>
    `vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Xeon @ ${clock}\nstepping\t: ${stepping}\n`;
  expect(guestCpu("kvm", host("2.60GHz", 7))).toBe("Xeon @ 2.60GHz (GenuineIntel/6/85/7)");
  expect(guestCpu("tcg", host("2.60GHz", 7))).toBe(guestCpu("tcg", host("2.60GHz", 6)));
  expect(guestCpu("tcg", host("2.60GHz", 7))).not.toBe(guestCpu("tcg", host("2.40GHz", 7)));
});

it("keeps a guest that panicked, restarted or powered off until its console has been read", () => {
  expect(qemuArguments(machine).join(" ")).toContain("-action reboot=shutdown,shutdown=pause");
});

it("keeps the console in a bounded ring, never in a file", () => {
  const args = qemuArguments(machine).join(" ");
  expect(args).toContain("-chardev ringbuf,id=console,size=65536 -serial chardev:console");
  expect(args).not.toContain("-serial file:");
});

it("turns on QEMU's system call filter", () => {
  expect(qemuArguments(machine).at(-1)).toBe("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
});

it("has neither disk nor network where none is asked for", () => {
  const args = qemuArguments({ ...machine, disk: null, tap: null }).join(" ");
  expect(args).not.toMatch(/-drive|-netdev|-device/);
});

it("opens a block device as what it is, and leaves its caching to the file below it", () => {
  const args = qemuArguments({ ...machine, disk: { path: "/sandboxes/one/disk", format: "raw" } });
  const drive = args.find((argument) => argument.startsWith("id=disk0,"));
  expect(drive).toContain("file=/sandboxes/one/disk,format=raw,if=none,cache=none,");
});

it("cannot be given further options through a path with a comma", () => {
  const disk = { path: "/odd,format=raw/overlay.qcow2", format: "qcow2" } as const;
  const args = qemuArguments({ ...machine, disk, qmpSocket: "/odd,server=off/s" });
  expect(args).toContain("unix:/odd,,server=off/s,server=on,wait=off");
  expect(args.find((argument) => argument.startsWith("id=disk0,"))).toContain("file=/odd,,format=raw/overlay.qcow2,");
});

it("takes the TSC's rate from bogomips, which Linux derives from it", () => {
  expect(tscKhzFromCpuInfo("processor\t: 0\nbogomips\t: 5192.28\n\nprocessor\t: 1\nbogomips\t: 5192.30\n")).toBe(
    2_596_140,
  );
  expect(tscKhzFromCpuInfo("processor\t: 0\nBogoMIPS\t: 50.00\n")).toBeNull();
});

it("tells only an emulated guest the TSC's rate", () => {
  const cpuInfo = "bogomips\t: 4000.00\n";
  expect(guestKernelArguments("tcg", cpuInfo).join(" ")).toContain("tsc_early_khz=2000000 tsc=reliable");
  expect(guestKernelArguments("kvm", cpuInfo).join(" ")).not.toContain("tsc_early_khz");
  expect(guestKernelArguments("tcg", "")).not.toContain("tsc_early_khz=null");
});
