import { expect, it } from "vitest";
import { guestKernelArguments, qemuArguments, type QemuMachine, tscKhzFromCpuInfo } from "./command-line.ts";

const machine: QemuMachine = {
  name: "a-sandbox",
  accelerator: "tcg",
  vcpus: 2,
  memoryMib: 512,
  kernel: "/boot/vmlinuz",
  initramfs: "/boot/initramfs.cpio",
  kernelArguments: ["quiet"],
  disk: "/sandboxes/one/overlay.qcow2",
  tap: "tap0",
  qmpSocket: "/sandboxes/one/qmp.sock",
};

it("emulates a microvm whose cache of translated code is bounded", () => {
  const args = qemuArguments(machine).join(" ");
  expect(args).toContain("-M microvm -accel tcg,thread=multi,tb-size=160 -cpu max -smp 2 -m 512M");
  expect(args).toContain("-append console=ttyS0 quiet");
});

it("gives guests the host's processor under KVM", () => {
  expect(qemuArguments({ ...machine, accelerator: "kvm" }).join(" ")).toContain("-accel kvm -cpu host");
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

it("cannot be given further options through a path with a comma", () => {
  const args = qemuArguments({ ...machine, disk: "/odd,format=raw/overlay.qcow2", qmpSocket: "/odd,server=off/s" });
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
  expect(guestKernelArguments("tcg", cpuInfo)).toContain("tsc_early_khz=2000000");
  expect(guestKernelArguments("kvm", cpuInfo).join(" ")).not.toContain("tsc_early_khz");
  expect(guestKernelArguments("tcg", "")).not.toContain("tsc_early_khz=null");
});
