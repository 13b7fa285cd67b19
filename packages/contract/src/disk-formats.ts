/** The formats of sandboxes' disks. A frozen state is of one, and its disk can be used in no other. */

/** `qcow2`: files that QEMU itself lays over one another. `dm-snapshot`: block devices that the kernel's device-mapper makes of such files. */
export const diskFormats = ["qcow2", "dm-snapshot"] as const;
export type DiskFormat = (typeof diskFormats)[number];
