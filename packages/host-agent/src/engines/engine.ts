/** What the rest of the host agent knows of a program that runs VMs. Each engine implements it in a folder of its own. */
import type { SandboxId } from "@wrenn/contract";
import type { ProcessIdentity, SandboxLayout } from "@wrenn/system";
import type { CgroupMembership } from "./cgroups.ts";

export const engineKinds = ["qemu-kvm", "qemu-tcg"] as const;
/** The program and how it runs guest code: on the processor (`kvm`) or by software emulation (`tcg`). */
export type EngineKind = (typeof engineKinds)[number];

/** Everything an engine needs in order to boot one VM. All paths are absolute. */
export interface VmSpec {
  readonly sandboxId: SandboxId;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly kernel: string;
  readonly initramfs: string;
  /** The sandbox's own disk, writable by `uid`. */
  readonly overlay: string;
  /** Where the engine's socket and logs lie. The directory is writable by `uid`'s group and sticky. */
  readonly files: SandboxLayout;
  readonly network: { readonly namespacePath: string; readonly tap: string };
  /** The user (and group) that this engine process alone runs as. */
  readonly uid: number;
  readonly cgroup: CgroupMembership;
}

/** Why a VM is no more, as far as the host can tell. */
export interface VmEnd {
  readonly code: "guest_panicked" | "guest_powered_off" | "vm_died";
  readonly message: string;
  readonly at: Date;
  readonly consoleTail: string;
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
  /**
   * Starts the engine's process and resolves when it answers; the guest is then booting.
   * @param onSpawned called as soon as there is a process, so that its identity can be written down.
   * @throws WrennError `engine_failed` with the engine's own words; nothing is left running then.
   */
  start(
    spec: VmSpec,
    onSpawned: (identity: ProcessIdentity) => Promise<void>,
    signal: AbortSignal,
  ): Promise<VirtualMachine>;
}
