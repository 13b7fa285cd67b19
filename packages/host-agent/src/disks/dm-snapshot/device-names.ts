/** How devices are called. A name tells which Wrenn of a host the device is of, so that each finds its own again, and what it is. No I/O. */
import { createHash } from "node:crypto";
import type { LayerId, SandboxId } from "@wrenn/contract";

/** Device-mapper takes names of up to 127 characters (DM_NAME_LEN). */
export class DeviceNames {
  readonly #prefix: string;

  /** @param root of the layout whose disks these are */
  constructor(root: string) {
    this.#prefix = `wrenn-${digest(root)}-`;
  }

  /** A sandbox's own disk, which its engine opens. */
  sandbox(id: SandboxId): string {
    return `${this.#prefix}sandbox-${id}`;
  }

  /** A layer with all that is below it. The size is the disk's: layers do not know it. */
  layer(id: LayerId, sizeMib: number): string {
    return `${this.#prefix}layer-${id}-${sizeMib}`;
  }

  /** A root filesystem, filled up with zeros to the disk's size. */
  base(rootfs: string, sizeMib: number): string {
    return `${this.#prefix}base-${digest(rootfs)}-${sizeMib}`;
  }

  isSandbox(name: string): boolean {
    return name.startsWith(`${this.#prefix}sandbox-`);
  }

  /** Whether any number of disks may lie on it. */
  isShared(name: string): boolean {
    return name.startsWith(`${this.#prefix}layer-`) || name.startsWith(`${this.#prefix}base-`);
  }
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}
