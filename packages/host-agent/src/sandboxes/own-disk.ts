/** A sandbox's own disk, as its journal describes it. */
import type { DiskFormat } from "@wrenn/contract";
import type { SandboxLayout } from "@wrenn/system";
import type { DiskChain, SandboxDisk } from "../disks/disks.ts";
import type { Disk, SandboxFacts } from "./journal.ts";

/** An empty disk over a frozen one, or over a root filesystem. */
export function diskOver({ format, layers, rootfs }: DiskChain & { readonly format: DiskFormat }): Disk {
  return { format, overlay: "overlay", layers: [...layers], rootfs, switchingTo: null };
}

/** The file that a sandbox's writes go to. */
export function overlayOf(files: SandboxLayout, { overlay, format }: Pick<Disk, "overlay" | "format">): string {
  return files[overlay](format);
}

/** The same disk once it has become a layer, with its other overlay over that. */
export function diskAfterSwitch(disk: Disk, layer: Disk["layers"][number]): Disk {
  const overlay = disk.overlay === "overlay" ? "otherOverlay" : "overlay";
  return { ...disk, overlay, layers: [layer, ...disk.layers], switchingTo: null };
}

/** What the keepers of disks are to know of it. */
export function asSandboxDisk(
  { sandboxId, diskMib }: Pick<SandboxFacts, "sandboxId" | "diskMib">,
  files: SandboxLayout,
  disk: Disk,
  uid: number,
): SandboxDisk {
  return { sandboxId, file: overlayOf(files, disk), below: disk, sizeMib: diskMib, uid };
}
