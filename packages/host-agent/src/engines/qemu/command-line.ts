/** QEMU's command line for one VM: a microvm machine with one disk, one network device and a console. No I/O. */
import { guestNetwork } from "@wrenn/contract";
import type { VmDisk } from "../engine.ts";

export type Accelerator = "kvm" | "tcg";

export interface QemuMachine {
  readonly name: string;
  readonly accelerator: Accelerator;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly start: QemuStart;
  /** Null for a machine without disk. */
  readonly disk: VmDisk | null;
  /** Name of the tap in the network namespace that QEMU runs in, or null for a machine without network. */
  readonly tap: string | null;
  readonly qmpSocket: string;
}

export type QemuStart =
  | {
      readonly from: "boot";
      readonly kernel: string;
      readonly initramfs: string;
      /** What follows the console's settings on the kernel's command line. */
      readonly kernelArguments: readonly string[];
    }
  /** The descriptor, as QEMU has it, of what `xen-save-devices-state` wrote. */
  | { readonly from: "frozen"; readonly deviceState: number };

/**
 * MiB of translated code QEMU may keep (`tb-size`; its own default of 1024 would break the bound on its memory). Booting
 * Debian and running Python fills about 60; what does not fit is translated again.
 */
const translationCacheMib = 160;

/** Bytes of console kept inside QEMU between two readings; the oldest are overwritten. A power of two. */
export const consoleRingBytes = 65_536;
export const consoleChardev = "console";

/** Names of devices, by which commands address them. */
export const diskDevice = "disk0";
const networkDevice = "net0";

const diskDeviceArguments = ["-device", `virtio-blk-device,drive=${diskDevice}`];
const networkDeviceArguments = ["-device", `virtio-net-device,netdev=${networkDevice},mac=${guestNetwork.mac}`];
const consoleArguments = ["-serial", `chardev:${consoleChardev}`];

export function qemuArguments(machine: QemuMachine): string[] {
  return [
    ["-name", escapeOption(machine.name)],
    boardArguments(machine),
    ["-accel", machine.accelerator === "kvm" ? "kvm" : `tcg,thread=multi,tb-size=${translationCacheMib}`],
    ["-nodefaults", "-no-user-config", "-display", "none"],
    // A guest that restarts, panics or powers off is kept, stopped, until its console has been read.
    ["-action", "reboot=shutdown,shutdown=pause"],
    startArguments(machine.start),
    // A ring in memory, read through QMP: whatever a guest prints, it cannot fill the host's disk.
    ["-chardev", `ringbuf,id=${consoleChardev},size=${consoleRingBytes}`, ...consoleArguments],
    ["-qmp", qmpArgument(machine.qmpSocket)],
    machine.disk === null ? [] : [...driveArguments(machine.disk), ...diskDeviceArguments],
    machine.tap === null ? [] : [...tapArguments(machine.tap), ...networkDeviceArguments],
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
  ].flat();
}

/** The part of the command line that a frozen guest depends on: QEMU loads its state into another machine without a word. */
export function machineLine(size: Pick<QemuMachine, "accelerator" | "vcpus" | "memoryMib">): string {
  return [boardArguments(size), consoleArguments, diskDeviceArguments, networkDeviceArguments].flat().join(" ");
}

function boardArguments(machine: Pick<QemuMachine, "accelerator" | "vcpus" | "memoryMib">): string[] {
  const memory = "mem";
  return [
    // With KVM, QEMU leaves the clock out unless told otherwise, and a guest spends half of its boot on looking for one: in a nested KVM
    // its kernel was up after 3.5 s with, 22 s without it.
    // pit, pic and acpi stay at their defaults: without pit and pic an emulated guest never finishes its timer set-up.
    ["-M", `microvm,memory-backend=${memory},mem-merge=off,rtc=on`],
    // Anonymous memory of exactly the guest's size, which the preloaded library replaces by what the guest is to have.
    ["-object", `memory-backend-ram,id=${memory},size=${machine.memoryMib}M`],
    ["-cpu", machine.accelerator === "kvm" ? "host" : "max"],
    ["-smp", String(machine.vcpus), "-m", `${machine.memoryMib}M`],
  ].flat();
}

/**
 * A frozen guest needs neither kernel nor initramfs: both are in its memory, which holds none of the firmware's. QEMU does not carry that
 * over, and a guest needs it for a restart only, which ends its VM.
 */
function startArguments(start: QemuStart): string[] {
  if (start.from === "boot") {
    const append = ["console=ttyS0", ...start.kernelArguments].join(" ");
    return ["-kernel", start.kernel, "-initrd", start.initramfs, "-append", append];
  }
  // xen-save-devices-state writes no section with the configuration, and an incoming QEMU would insist on one.
  return ["-global", "migration.send-configuration=off", "-incoming", `fd:${start.deviceState}`];
}

/**
 * The kernel arguments of every guest. `reboot=t panic=-1` make a panic or restart an immediate triple fault, which the engine
 * reports; nothing names a root, because the guest's first process finds it.
 * @param cpuInfo content of /proc/cpuinfo
 */
export function guestKernelArguments(accelerator: Accelerator, cpuInfo: string): string[] {
  const common = ["reboot=t", "panic=-1", "quiet", "random.trust_cpu=on"];
  const tscKhz = accelerator === "tcg" ? tscKhzFromCpuInfo(cpuInfo) : null;
  // `reliable`: on a busy host an emulated guest otherwise finds its TSC wanting against the ticks of an emulated timer, and counts time
  // in steps of 4 ms from then on. QEMU derives the TSC from the host's clock.
  return tscKhz === null ? common : [...common, `tsc_early_khz=${tscKhz}`, "tsc=reliable"];
}

/**
 * The host's TSC rate: Linux on x86 sets bogomips from it (2 loops a tick: lpj = tsc_khz * 1000 / HZ). An emulated guest
 * that is told it skips a calibration against an emulated timer that hangs on a busy host.
 */
export function tscKhzFromCpuInfo(cpuInfo: string): number | null {
  const bogomips = /^bogomips\s*:\s*([\d.]+)$/m.exec(cpuInfo)?.[1];
  return bogomips === undefined ? null : Math.round(Number(bogomips) * 500);
}

/**
 * The processor that a guest finds. An emulated one is always the same, but its clock ticks as the host's does, and a guest measures that
 * rate once.
 */
export function guestCpu(accelerator: Accelerator, cpuInfo: string): string {
  const field = (name: string): string => new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(cpuInfo)?.[1] ?? "unknown";
  const host = field("model name");
  if (accelerator === "tcg") return `max, with the clock of ${host}`;
  const exact = ["vendor_id", "cpu family", "model", "stepping"].map((name) => field(name)).join("/");
  return `${host} (${exact})`;
}

/** The exact argument by which a running engine's process names its control socket. */
export function qmpArgument(qmpSocket: string): string {
  return `unix:${escapeOption(qmpSocket)},server=on,wait=off`;
}

function driveArguments({ path, format }: VmDisk): string[] {
  // Past the cache of a block device there is that of the file which its writes go to.
  const cache = format === "raw" ? "none" : "writeback";
  const use = `format=${format},if=none,cache=${cache},discard=unmap`;
  // Errors of the host's disk (it is full) are reported to the guest; QEMU's default would stop the VM without a word.
  const errors = "werror=report,rerror=report";
  return ["-drive", `id=${diskDevice},file=${escapeOption(path)},${use},${errors}`];
}

function tapArguments(tap: string): string[] {
  return ["-netdev", `tap,id=${networkDevice},ifname=${tap},script=no,downscript=no`];
}

/** A comma ends a value in QEMU's options unless doubled. */
function escapeOption(value: string): string {
  return value.replaceAll(",", ",,");
}
