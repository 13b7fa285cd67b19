/** The directories a host agent needs, with permissions that let engines' users reach what is theirs and nothing else. */
import { chmod, stat } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { type Layout, makeDirectory, socketPathsFit } from "@wrenn/system";

/** Others may pass through a directory whose name they know, but not list it. */
export const passable = 0o711;

/** @throws WrennError `setup_failed` when WRENN_DIR lies where it cannot be used */
export async function prepareDirectories(layout: Layout): Promise<void> {
  if (!socketPathsFit(layout)) {
    throw new WrennError("setup_failed", {
      message: `WRENN_DIR (${layout.root}) is too long: a unix socket below it would exceed the kernel's limit.`,
      suggestion: "Choose a shorter WRENN_DIR.",
    });
  }
  await makeDirectory(layout.root);
  await makeDirectory(layout.sandboxes, passable);
  await makeDirectory(layout.run, passable);
  // Engines pass through to the layers of disks that they are told of, and reach nothing else of what is frozen.
  await makeDirectory(layout.layers, passable);
  for (const directory of [layout.generations, layout.golden]) await makeDirectory(directory, 0o700);
  for (const directory of [layout.root, layout.sandboxes, layout.run, layout.layers]) await allowPassing(directory);
  await assertReachable(path.dirname(layout.root));
}

async function allowPassing(directory: string): Promise<void> {
  const { mode } = await stat(directory);
  if ((mode & 0o001) === 0) await chmod(directory, (mode & 0o7777) | 0o001);
}

async function assertReachable(directory: string): Promise<void> {
  const { mode } = await stat(directory);
  if ((mode & 0o001) === 0) {
    throw new WrennError("setup_failed", {
      message: `Engines run as users of their own, and ${directory} lets nobody but its owner through to WRENN_DIR.`,
      suggestion: `Choose another WRENN_DIR, or run: chmod o+x ${directory}`,
    });
  }
  const parent = path.dirname(directory);
  if (parent !== directory) await assertReachable(parent);
}
