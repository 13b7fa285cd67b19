/** Whether what an engine could not write may have failed for want of room: engines say no more than that they could not. */
import { statfs } from "node:fs/promises";

/** The state of the devices of a microVM takes less than 1 MiB. */
const leastBytes = 2_097_152;

export async function hasRoomLeft(directory: string): Promise<boolean> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize > leastBytes;
}
