/** What the lab keeps below `cache/`. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { Layout } from "@wrenn/system";

export interface LabImage {
  readonly directory: string;
  readonly root: string;
  readonly kernel: string;
  readonly initramfs: string;
  /** Written last: whoever finds it finds the rest. */
  readonly manifest: string;
}

/** Everything of the lab that outlives a run. */
export function labDirectory(layout: Layout): string {
  return path.join(layout.cache, "lab");
}

export function labImage(directory: string): LabImage {
  return {
    directory,
    root: path.join(directory, "root.ext4"),
    kernel: path.join(directory, "kernel"),
    initramfs: path.join(directory, "initramfs.cpio"),
    manifest: path.join(directory, "image.json"),
  };
}

/** Programs that run inside the VM. This file lies in lab/src, compiled in lab/dist. */
export const guestPrograms = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../guest");
