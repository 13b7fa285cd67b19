/**
 * Which processes are Firecracker's. A jailed one is known by its root directory, which it cannot change, whatever it does to its command
 * line; one that is on its way into the jail, by the jailer's command line.
 */
import { readdir } from "node:fs/promises";
import path from "node:path";
import { fileIdentity, hasErrno, isMissingFile, type JailLayout } from "@wrenn/system";

/** Tells engines of these jails from other processes. */
export interface JailedProcesses {
  isJailed(pid: number): Promise<boolean>;
  isOnItsWay(args: readonly string[]): boolean;
}

export async function processesOfJails(jails: readonly JailLayout[]): Promise<JailedProcesses> {
  const roots = new Set<string>();
  for (const { directory } of jails) {
    for (const root of await jailRootsIn(directory)) {
      const identity = await fileIdentity(root);
      if (identity !== null) roots.add(identity);
    }
  }
  const directories = new Set(jails.map(({ directory }) => directory));
  return {
    isJailed: async (pid) => {
      const root = roots.size === 0 ? null : await rootOf(pid);
      return root !== null && roots.has(root);
    },
    isOnItsWay: (args) => args.some((argument) => directories.has(argument)),
  };
}

/** The root directories of a sandbox's jails, under whatever program's and VM's name; some of them may not be there. */
export async function jailRootsIn(directory: string): Promise<string[]> {
  const roots: string[] = [];
  for (const program of await entriesOf(directory)) {
    for (const id of await entriesOf(path.join(directory, program))) {
      roots.push(path.join(directory, program, id, "root"));
    }
  }
  return roots;
}

async function entriesOf(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error) || hasErrno(error, "ENOTDIR")) return [];
    throw error;
  }
}

async function rootOf(pid: number): Promise<string | null> {
  try {
    return await fileIdentity(`/proc/${pid}/root`);
  } catch {
    // It has ended meanwhile.
    return null;
  }
}
