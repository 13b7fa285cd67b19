/** Tells processes of this machine from those of containers on it, which have paths, cgroups and perhaps a Wrenn of their own. */
import { stat } from "node:fs/promises";

/** Whether the process has another root directory than this one. What cannot be looked into, or has ended, is no container's. */
export async function isContained(pid: number): Promise<boolean> {
  try {
    const [own, its] = await Promise.all([stat("/"), stat(`/proc/${pid}/root`)]);
    return own.dev !== its.dev || own.ino !== its.ino;
  } catch {
    return false;
  }
}
