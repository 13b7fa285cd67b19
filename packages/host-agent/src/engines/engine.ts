/** What the rest of the host agent knows of a program that runs VMs. Each engine implements it in a folder of its own. */
import type { GenerationId, SandboxId } from "@wrenn/contract";
import type { ProcessIdentity, SandboxLayout } from "@wrenn/system";
import type { CgroupMembership } from "./cgroups.ts";

export const engineKinds = ["firecracker", "qemu-kvm", "qemu-tcg"] as const;
/** The program and how it runs guest code: on the processor (`kvm`) or by software emulation (`tcg`). */
export type EngineKind = (typeof engineKinds)[number];

/**
 * Where a VM's memory comes from. `file` maps a file with exactly the guest's size privately, so that it is never written: a flat
 * memory image, or an empty file for a cold boot. `layers` does the same with the pieces of an image, whose layers are in the order of
 * its header; not every engine can. `uffd` has a pager, which listens on `socket`, fill pages as they are touched.
 */
export type GuestMemory =
  | { readonly backend: "file"; readonly path: string }
  | { readonly backend: "layers"; readonly header: string; readonly layers: readonly string[] }
  | { readonly backend: "uffd"; readonly socket: string };

/** How a VM begins: with a kernel, or in the middle of what it was doing when the state of its devices was written. */
export type VmStart =
  | { readonly from: "boot"; readonly kernel: string; readonly initramfs: string }
  | { readonly from: "frozen"; readonly deviceState: string };

/** What an engine opens as a VM's disk: a qcow2 file, or with `raw` a block device. */
export interface VmDisk {
  readonly path: string;
  readonly format: "qcow2" | "raw";
}

/** Everything an engine needs in order to start one VM. All paths are absolute. */
export interface VmSpec {
  readonly sandboxId: SandboxId;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly start: VmStart;
  /** Neither this file nor that of `start.deviceState` need be readable by `uid`. */
  readonly memory: GuestMemory;
  /** The sandbox's own, writable by `uid`. */
  readonly disk: VmDisk;
  /** Where the engine's socket and logs lie. The directory is writable by `uid`'s group and sticky. */
  readonly files: SandboxLayout;
  readonly network: { readonly namespacePath: string; readonly tap: string };
  /** The user (and group) that this engine process alone runs as. */
  readonly uid: number;
  readonly cgroup: CgroupMembership;
}

/** What must be equal on both sides when a frozen VM is started again, because its memory or the state of its devices depends on it. */
export interface MachineIdentity {
  readonly engine: EngineKind;
  /** The engine's own. */
  readonly version: string;
  /** The processor that the guest has found, and whose features it uses. */
  readonly cpu: string;
  /** The part of the engine's configuration that decides which devices there are, and where. */
  readonly machine: string;
}

/** Why a VM is no more, as far as the host can tell. */
export interface VmEnd {
  readonly code: "disk_failed" | "guest_panicked" | "guest_powered_off" | "memory_unreadable" | "vm_died";
  readonly message: string;
  readonly at: Date;
  readonly consoleTail: string;
}

/** Which capture of a VM's memory this is. */
export interface CaptureName {
  /** The state that it builds upon; null for a guest that was booted. */
  readonly parent: GenerationId | null;
  /** The state that it is part of. */
  readonly id: GenerationId;
}

/** One VM, whichever host agent process started it. */
export interface VirtualMachine {
  readonly identity: ProcessIdentity;
  /** Resolves once, when the guest has panicked or powered off, or the engine's process has gone. Never rejects. */
  readonly ended: Promise<VmEnd>;
  /** Sees to it that what the guest has printed until now is in the log of its console. */
  drainConsole(): Promise<void>;
  /** The last lines of the guest's console. */
  consoleTail(): Promise<string>;
  /**
   * Stops the guest's processors, writes all that it has given to its disk into the disk's file (without fsync), and, where there is no
   * `writeState`, the state of its devices to `files.deviceState`. Can be done again. A frozen VM has not ended.
   * @throws WrennError `engine_failed`; whether it is frozen is then for `isFrozen` to say
   */
  freeze(): Promise<void>;
  /**
   * Only of engines that write guest memory themselves: writes the state of a frozen guest's devices to `files.deviceState`, and into
   * `files.jail.writtenMemory`, which is for the caller to remove, at least those pages that may differ from the parent's, at their own
   * addresses, with holes between them. Of other engines, memory is read from their process.
   * @throws WrennError `engine_failed` or `host_out_of_disk`; the VM is still frozen
   */
  writeState?(name: CaptureName): Promise<void>;
  /** Lets the guest's processors run on; no error when they do already. */
  thaw(): Promise<void>;
  /** Whether the guest's processors stand still: by `freeze`, perhaps in the life of another host agent process. */
  isFrozen(): Promise<boolean>;
  /**
   * From now on the guest's writes go to this overlay, which is empty, as large as the present one, and names as its backing a file with
   * the present one's content. Only while frozen, and only of engines that open qcow2: below other disks, the kernel does it.
   */
  switchDisk?(overlay: string): Promise<void>;
  /** Ends the engine's process at once and waits until it is gone. `ended` does not report this end. */
  kill(): Promise<void>;
  /** Lets go of the VM without ending it. */
  detach(): Promise<void>;
}

export interface Engine {
  readonly kind: EngineKind;
  readonly version: string;
  /** Why this engine was chosen, in a sentence. */
  readonly reason: string;
  /** Which disks it can open. */
  readonly opens: readonly VmDisk["format"][];
  /** Whether memory can be mapped from `layers`. */
  readonly mapsLayers: boolean;
  /** What a VM of this size that this engine starts would be. */
  identify(size: { readonly vcpus: number; readonly memoryMib: number }): Promise<MachineIdentity>;
  /**
   * Starts the engine's process. Resolves when it answers: a guest that boots is then booting, one that was frozen runs.
   * @param onSpawned called as soon as there is a process, so that its identity can be written down.
   * @throws WrennError `engine_failed` with the engine's own words; nothing is left running then.
   */
  start(
    spec: VmSpec,
    onSpawned: (identity: ProcessIdentity) => Promise<void>,
    signal: AbortSignal,
  ): Promise<VirtualMachine>;
}
