/** What the rest of the host agent knows of the disks of sandboxes. Each format implements it in a folder of its own. */
import type { DiskFormat, LayerId, SandboxId } from "@wrenn/contract";
import type { ProcessIdentity } from "@wrenn/system";
import type { VirtualMachine, VmDisk } from "../engines/engine.ts";

/** Sealed layers of a disk, the topmost first, and the raw root filesystem below them. They are shared, and never written. */
export interface DiskChain {
  readonly layers: readonly LayerId[];
  readonly rootfs: string;
}

/** A sandbox's own disk. */
export interface SandboxDisk {
  readonly sandboxId: SandboxId;
  /** The overlay, which all that the guest writes goes to. */
  readonly file: string;
  /** What the overlay is laid over. */
  readonly below: DiskChain;
  readonly sizeMib: number;
  /** The user that its engine runs as. */
  readonly uid: number;
}

export interface FlattenOptions {
  readonly chain: DiskChain;
  /** How large the disk is that the chain makes up. */
  readonly sizeMib: number;
  /** The new layer, of which nothing is there, or what a flattening that was cut short has left. */
  readonly target: LayerId;
}

export interface Disks {
  readonly format: DiskFormat;
  /** As what an engine opens such a disk. */
  readonly openedAs: VmDisk["format"];

  /** Makes the file of an overlay in which nothing has been written. There must be nothing of that name. */
  createOverlay(disk: SandboxDisk): Promise<void>;

  /**
   * Makes a disk ready for an engine of `disk.uid`, which alone can use it then; its chain is sealed. Can be done again. Devices that this
   * takes are the kernel's, and are found again by the sandbox's id: nothing need be written down for them.
   * @throws WrennError `disk_setup_failed`, `snapshot_damaged`
   */
  attach(disk: SandboxDisk): Promise<VmDisk>;

  /**
   * Gives back what `attach` took, also half-way, and shared devices that nothing else uses. The engine has gone. Can be done again, also
   * of what was never attached.
   * @throws WrennError `disk_setup_failed` when something still holds it after a while
   */
  detach(sandboxId: SandboxId): Promise<void>;

  /**
   * Gives the overlay a second name, under which it outlives its sandbox, and makes its content last. An engine may have it attached, but
   * must be frozen, or about to leave it for another overlay by `switchOverlay`.
   */
  keepAsLayer(overlay: Pick<SandboxDisk, "sandboxId" | "file">, layer: LayerId): Promise<void>;

  /**
   * Takes the topmost layer of a chain from the engine that wrote it. Once that has let go of it, nobody can change it. Can be done again,
   * and is done before every use: a kill may have kept it from being done.
   * @throws WrennError `snapshot_damaged` when it is not a layer over the rest of the chain
   */
  sealTop(chain: DiskChain): Promise<void>;

  /**
   * While the VM is frozen: from now on its writes go to `next`, an empty overlay over a chain whose topmost layer is the present overlay,
   * which `keepAsLayer` has kept.
   */
  switchOverlay(vm: Pick<VirtualMachine, "switchDisk">, next: SandboxDisk): Promise<void>;

  /**
   * After a switch that may have been cut short, before the VM is thawed.
   * @param next the file of the overlay that it was to switch to, which is there
   * @returns whether the VM's writes go there now; if not, they go to the overlay that it had
   */
  finishSwitch(
    vm: { readonly sandboxId: SandboxId; readonly process: ProcessIdentity },
    next: string,
  ): Promise<boolean>;

  /**
   * Makes one sealed layer over the root filesystem with all that a chain of layers holds.
   * @throws WrennError `snapshot_damaged` when the chain is not what it should be
   */
  flatten(options: FlattenOptions, signal: AbortSignal): Promise<void>;

  /**
   * Whether the disk takes nothing any more, and gives nothing, because a write to the file of its overlay failed: the VM that has it is
   * of no use then. Absent where nothing but such a write is refused. False for a file that is not there.
   */
  hasFailed?(overlay: string): Promise<boolean>;

  /** At the start of a host agent: gives back everything that was attached for other sandboxes than these, whose engines live. */
  clear(attached: readonly SandboxId[]): Promise<void>;
}
