/** How many sandboxes a machine holds, asked of its files: for when no host agent runs that could be asked. */
import { readdir } from "node:fs/promises";
import { isMissingFile, type Layout } from "@wrenn/system";
import { asRoot } from "./root-only.ts";

/** Every sandbox has a directory from the first step of its creation to the last of its destruction. */
export async function countSandboxes(layout: Layout): Promise<number> {
  try {
    const entries = await asRoot(() => readdir(layout.sandboxes, { withFileTypes: true }));
    return entries.filter((entry) => entry.isDirectory()).length;
  } catch (error) {
    if (isMissingFile(error)) return 0;
    throw error;
  }
}
