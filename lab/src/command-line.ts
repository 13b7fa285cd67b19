/** QEMU's command line for the lab's VM. */
import { guestKernelArguments } from "@wrenn/host-agent";
import type { Accelerator } from "@wrenn/host-agent";
import type { LabImage } from "./paths.ts";

export interface LabDisk {
  /** By which the VM finds it. */
  readonly serial: string;
  /** As QEMU inherits it. */
  readonly descriptor: number;
  /** Whether others use the same file, so that what the VM writes must go elsewhere. */
  readonly shared: boolean;
}

export interface LabMachine {
  readonly image: LabImage;
  readonly accelerator: Accelerator;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly disks: readonly LabDisk[];
  /** The connected socket of the channel, as QEMU inherits it. */
  readonly channel: number;
}

/** A nested guest's code is translated too; QEMU's default of 1 GiB is more than it ever fills. */
const translationCacheMib = 512;

/** @param cpuInfo content of /proc/cpuinfo */
export function labArguments(machine: LabMachine, cpuInfo: string): string[] {
  const { accelerator, image } = machine;
  return [
    ["-name", "wrenn-lab", "-M", "microvm,mem-merge=off"],
    ["-accel", accelerator === "kvm" ? "kvm" : `tcg,thread=multi,tb-size=${translationCacheMib}`],
    // The emulated one has SVM, so that there is a KVM inside.
    ["-cpu", accelerator === "kvm" ? "host" : "max"],
    ["-smp", String(machine.vcpus), "-m", `${machine.memoryMib}M`],
    ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ["-kernel", image.kernel, "-initrd", image.initramfs],
    // Nobody attacks the lab from inside, and what guards against that is slow where it is emulated.
    ["-append", ["console=ttyS0", "mitigations=off", ...guestKernelArguments(accelerator, cpuInfo)].join(" ")],
    ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"],
    ["-device", "virtio-rng-device"],
    ["-chardev", `socket,id=channel,fd=${machine.channel}`],
    ["-device", "virtio-serial-device", "-device", "virtserialport,chardev=channel,name=lab"],
    machine.disks.flatMap(diskArguments),
  ].flat();
}

/** QEMU opens them anew by descriptor, so the files need no name. Nothing is flushed, for nothing of it is needed after a crash. */
function diskArguments({ serial, descriptor, shared }: LabDisk): string[] {
  const drive = `id=${serial},file=/proc/self/fd/${descriptor},format=raw,if=none,cache=unsafe,discard=unmap`;
  return [
    ["-drive", `${drive},snapshot=${shared ? "on" : "off"}`],
    ["-device", `virtio-blk-device,drive=${serial},serial=${serial}`],
  ].flat();
}
