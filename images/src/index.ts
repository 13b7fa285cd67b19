export { refreshingPackageLists } from "./apt-lists.ts";
export type { BuildOptions } from "./build.ts";
export { removeScratch } from "./build.ts";
export { detectDistribution, type Distribution } from "./distribution.ts";
export { bootFilesAreCurrent, buildBootFiles, readBootManifest } from "./initramfs.ts";
export { buildKernel, findKernel, type Kernel } from "./kernel.ts";
export { buildRootfs, rootfsIsCurrent, type Rootfs } from "./rootfs.ts";
