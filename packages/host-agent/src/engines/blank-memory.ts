/** The memory of a VM that boots: a memory image in which nothing has been written. */
import { open } from "node:fs/promises";

const mebibyte = 1_048_576;

/** Makes a file of the guest's size that is one hole: it takes no space, and never will, because engines map it privately. */
export async function makeBlankMemory(file: string, memoryMib: number): Promise<void> {
  const handle = await open(file, "w", 0o400);
  try {
    await handle.truncate(memoryMib * mebibyte);
  } finally {
    await handle.close();
  }
}
