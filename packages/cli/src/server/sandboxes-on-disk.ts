/** What a machine holds, asked of its files: for when no host agent runs that could be asked. */
import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { isMissingFile, type Layout } from "@wrenn/system";
import { asRoot } from "./root-only.ts";

/** Every sandbox has a directory from the first step of its creation to the last of its destruction. */
export async function countSandboxes(layout: Layout): Promise<number> {
  return (await entriesOf(layout.sandboxes)).filter((entry) => entry.isDirectory()).length;
}

/** Whether there is a frozen guest that sandboxes could be started from. */
export async function hasGoldenSnapshot(layout: Layout): Promise<boolean> {
  return (await entriesOf(layout.golden)).length > 0;
}

async function entriesOf(directory: string): Promise<Dirent[]> {
  try {
    return await asRoot(() => readdir(directory, { withFileTypes: true }));
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
