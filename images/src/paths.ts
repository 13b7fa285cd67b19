/** Paths that only the building of images knows: what lies inside `cache/`, and names inside `boot/` and a template. */
import path from "node:path";
import type { Layout } from "@wrenn/system";

/** Scratch of a build begins with this, so that the next run knows what an interrupted one left. */
export const scratchPrefix = ".building-";

export interface ImagePaths {
  /** One directory per kernel recipe: the kernel, `modules/`, `kernel.json`. */
  readonly kernels: string;
  /** Packages of the root filesystem as downloaded. */
  readonly packages: string;
  readonly kernel: (recipe: string) => KernelPaths;
  /** Relative to `boot/`, as the boot manifest has it. */
  readonly bootFile: (hash: string, name: string) => string;
  readonly bootDirectory: (hash: string) => string;
  /** Scratch beside a final place, on the same file system, so that a rename publishes it. */
  readonly scratch: (parent: string, what: string) => string;
}

export interface KernelPaths {
  readonly directory: string;
  readonly image: string;
  readonly modules: string;
  readonly manifest: string;
}

export function imagePaths(layout: Layout): ImagePaths {
  const kernels = path.join(layout.cache, "kernels");
  return {
    kernels,
    packages: path.join(layout.cache, "packages"),
    kernel: (recipe) => kernelPaths(path.join(kernels, recipe)),
    bootFile: (hash, name) => `${hash}/${name}`,
    bootDirectory: (hash) => path.join(layout.boot, hash),
    scratch: (parent, what) => path.join(parent, `${scratchPrefix}${what}-${process.pid}`),
  };
}

/** The files of one kernel, in its final directory or in scratch. */
export function kernelPaths(directory: string): KernelPaths {
  return {
    directory,
    image: path.join(directory, "image"),
    modules: path.join(directory, "modules"),
    manifest: path.join(directory, "kernel.json"),
  };
}
