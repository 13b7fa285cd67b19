/** Whether this machine can have disks of the format dm-snapshot: device-mapper with its target, and loop devices. */
import { access } from "node:fs/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { runUnchecked } from "@wrenn/system";

export interface DmVerdict {
  readonly usable: boolean;
  /** What shows it, in a sentence, and what could be done about it. */
  readonly reason: string;
}

export async function detectDmSnapshot(): Promise<DmVerdict> {
  try {
    // A kernel loads modules by itself when they are used, but does not list what it has not loaded.
    const found = (await targets()) ?? (await loadModules());
    if (found === null)
      return lacking("The kernel has no device-mapper with the target snapshot", "modprobe dm_snapshot");
    if (!(await hasLoopDevices())) return lacking("The kernel gives out no loop devices", "modprobe loop");
    return { usable: true, reason: `Device-mapper (snapshot ${found}) and loop devices work here.` };
  } catch (error) {
    if (!(error instanceof WrennError) || error.code !== "dependency_missing") throw error;
    return lacking(error.message.replace(/\.$/, ""), "apt-get install dmsetup mount");
  }
}

function lacking(what: string, mend: string): DmVerdict {
  return { usable: false, reason: `${what}; what may help: ${mend}` };
}

/** The version of the target `snapshot`; null when there is no such target, or no device-mapper. */
async function targets(): Promise<string | null> {
  const { stdout } = await runUnchecked("dmsetup", ["targets"], { timeoutMs: deadlines.subprocess });
  return /^snapshot\s+(v[\d.]+)/m.exec(stdout)?.[1] ?? null;
}

async function loadModules(): Promise<string | null> {
  await runUnchecked("modprobe", ["--quiet", "--all", "dm_snapshot", "loop"]);
  return targets();
}

/** Takes none: the number of a free one is asked for, and whether there is a device of that number. */
async function hasLoopDevices(): Promise<boolean> {
  const { exitCode, stdout } = await runUnchecked("losetup", ["--find"]);
  if (exitCode !== 0) return false;
  return access(stdout.trim()).then(
    () => true,
    () => false,
  );
}
