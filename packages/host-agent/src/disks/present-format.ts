/** How this host keeps the disks of sandboxes. There is one way so far. */
export const presentFormat = {
  format: "qcow2",
  reason: "Disks are files that QEMU itself lays over one another.",
} as const;
