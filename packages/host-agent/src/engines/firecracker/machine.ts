/** What a VM of Firecracker consists of, and where its parts lie in the jail: for every VM at the same places. No I/O. */
import { guestNetwork } from "@wrenn/contract";
import { guestCpu, guestKernelArguments } from "../qemu/command-line.ts";
import type { MachineIdentity } from "../engine.ts";

/** Paths in the jail. A frozen state names the disk, so these are part of what it depends on. */
export const inJail = {
  apiSocket: "/api.sock",
  log: "/log",
  config: "/config.json",
  kernel: "/kernel",
  initramfs: "/initramfs",
  disk: "/disk",
  /** Frozen memory that is mapped, or the pager that serves it. */
  memory: "/memory",
  pagerSocket: "/pager.sock",
  deviceState: "/device-state",
  /** What a VM writes when it is frozen itself. */
  writtenMemory: "/written-memory",
  writtenDevices: "/written-device-state",
} as const;

export interface MachineSize {
  readonly vcpus: number;
  readonly memoryMib: number;
}

/**
 * What a guest may take of the host's entropy: enough for it to start from, and to reseed; not so much that it keeps a thread of its
 * engine busy.
 */
const entropyLimit = { bandwidth: { size: 65_536, refill_time: 1_000 } };

function devices(tap: string): object {
  return {
    drives: [
      // `Writeback`: what a guest flushes is written to the host's disk, as with a real one.
      {
        drive_id: "disk",
        path_on_host: inJail.disk,
        is_root_device: false,
        is_read_only: false,
        cache_type: "Writeback",
      },
    ],
    "network-interfaces": [{ iface_id: "network", host_dev_name: tap, guest_mac: guestNetwork.mac }],
    entropy: { rate_limiter: entropyLimit },
  };
}

function machine({ vcpus, memoryMib }: MachineSize): object {
  return { "machine-config": { vcpu_count: vcpus, mem_size_mib: memoryMib, smt: false, track_dirty_pages: true } };
}

/** All that Firecracker needs in order to boot a guest, so that it takes no calls at all. */
export function bootConfiguration(size: MachineSize, tap: string): object {
  // Firecracker ends well when the guest resets its keyboard controller, and with an error after the triple fault that QEMU waits for. The
  // other controllers that this one could have are not there, and would be looked for.
  const reset = ["reboot=k", "i8042.noaux", "i8042.nomux", "i8042.nopnp", "i8042.dumbkbd"];
  const common = guestKernelArguments("kvm", "").filter((argument) => !argument.startsWith("reboot="));
  const bootArguments = ["console=ttyS0", ...common, ...reset].join(" ");
  return {
    "boot-source": { kernel_image_path: inJail.kernel, initrd_path: inJail.initramfs, boot_args: bootArguments },
    ...machine(size),
    ...devices(tap),
  };
}

/** What a frozen guest depends on. Firecracker checks next to nothing of it. */
export function machineIdentity(version: string, cpuInfo: string, size: MachineSize, tap: string): MachineIdentity {
  return {
    engine: "firecracker",
    version,
    cpu: guestCpu("kvm", cpuInfo),
    machine: JSON.stringify({ ...machine(size), ...devices(tap) }),
  };
}
