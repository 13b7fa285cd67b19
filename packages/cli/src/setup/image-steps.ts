/** What VMs boot from: kernel, initramfs and the root filesystem of the built-in template. */
import {
  bootFilesAreCurrent,
  buildBootFiles,
  buildKernel,
  buildRootfs,
  detectDistribution,
  findKernel,
  rootfsIsCurrent,
  type BuildOptions,
} from "@wrenn/images";
import { WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { installedGuestAgent } from "./native-programs-step.ts";
import type { SetupStep, StepProgress } from "./step.ts";

const mebibyte = 1_048_576;

export function kernelStep(layout: Layout): SetupStep {
  return {
    name: "Taking the guests' kernel from its package",
    expectedSeconds: 10,
    // The package, its content, and what is kept of it.
    disk: { path: layout.root, bytes: 300 * mebibyte },
    needsRoot: true,
    isDone: async () => (await findKernel(layout, await detectDistribution())) !== null,
    run: async (progress) => {
      await buildKernel(buildOptions(layout, progress), await detectDistribution());
    },
  };
}

export function initramfsStep(layout: Layout): SetupStep {
  return {
    name: "Packing the initramfs",
    expectedSeconds: 1,
    disk: { path: layout.root, bytes: 50 * mebibyte },
    needsRoot: true,
    isDone: async () => {
      const kernel = await findKernel(layout, await detectDistribution());
      const guestAgent = await installedGuestAgent(layout);
      return kernel !== null && guestAgent !== null && (await bootFilesAreCurrent(layout, kernel, guestAgent));
    },
    run: async (progress) => {
      const kernel = await findKernel(layout, await detectDistribution());
      if (kernel === null) throw new WrennError("setup_failed", { message: "The guests' kernel went missing." });
      await buildBootFiles(buildOptions(layout, progress), kernel, layout.guestAgent);
    },
  };
}

export function rootfsStep(layout: Layout): SetupStep {
  return {
    name: "Building the root filesystem",
    expectedSeconds: 40,
    // Packages, the tree they are installed in, the file system made of it and its sparse copy.
    disk: { path: layout.root, bytes: 1_200 * mebibyte },
    needsRoot: true,
    isDone: async () => rootfsIsCurrent(layout, await detectDistribution()),
    run: async (progress) => {
      await buildRootfs(buildOptions(layout, progress), await detectDistribution());
    },
  };
}

function buildOptions(layout: Layout, { say, signal }: StepProgress): BuildOptions {
  return { layout, onProgress: say, signal };
}
