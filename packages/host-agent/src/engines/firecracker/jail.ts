/**
 * The directory that Firecracker is locked into, and what lies in it. Nothing else of the host's files can be reached from there; so all a
 * VM needs is given a second name in it, always the same one, and a frozen state fits any sandbox.
 */
import { chmod, chown, constants, copyFile, link, lstat, mkdir, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { type SandboxId, WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile, type JailLayout, makeDirectory, run } from "@wrenn/system";
import type { VmSpec } from "../engine.ts";
import { jailsGid } from "../users.ts";
import { bootConfiguration, inJail } from "./machine.ts";
import { jailRootsIn } from "./processes.ts";

const mebibyte = 1_048_576;

export interface Jail {
  readonly files: JailLayout;
  /** Its root directory, as the host sees it. The engine's user owns it: what lies in it is believed no more than the engine. */
  readonly root: string;
}

/** Where the jailer makes the jail of a VM: named after the program and the VM. */
export function jailOf(files: JailLayout, program: string, id: SandboxId): Jail {
  return { files, root: path.join(files.directory, path.basename(program), id, "root") };
}

/** The one that there is, whatever program it is named after. @throws WrennError `engine_failed` when there is none */
export async function findJail(files: JailLayout): Promise<Jail> {
  const [root] = await jailRootsIn(files.directory);
  if (root !== undefined) return { files, root };
  throw new WrennError("engine_failed", { message: `There is no jail in ${files.directory}.` });
}

/**
 * Makes a jail, instead of any that is there, with all that the VM is to have.
 * @throws WrennError `snapshot_damaged`, or `engine_failed` for a part that is missing
 */
export async function makeJail(jail: Jail, spec: VmSpec): Promise<void> {
  const { files, root } = jail;
  await removeJail(files);
  await mkdir(files.directory, { mode: 0o700 });
  await makeDirectory(root);
  await makePipes(jail, spec.uid);
  await placeDisk(spec, within(root, inJail.disk));
  await (spec.start.from === "boot" ? placeBoot(jail, spec) : placeFrozen(jail, spec));
}

/** Removes it with all that is in it, whoever has put it there. Its engine has ended. Can be called again. */
export async function removeJail(files: JailLayout): Promise<void> {
  await rm(files.directory, { recursive: true, force: true });
}

/**
 * Gives the engine's API socket a name outside the jail, once there is one. By a name inside, an engine that its guest has taken over could
 * lead the host agent to any socket of the host.
 * @returns whether there is one
 */
export async function takeApiSocket({ files, root }: Jail): Promise<boolean> {
  try {
    await link(within(root, inJail.apiSocket), files.apiSocket);
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw error;
  }
  if ((await lstat(files.apiSocket)).isSocket()) return true;
  throw new WrennError("engine_failed", { message: "Firecracker has put something else in place of its socket." });
}

/** Takes what the engine has written out of the jail. A name is moved, whatever it leads to. */
export async function takeOut({ root }: Jail, written: string, to: string): Promise<void> {
  await rm(to, { recursive: true, force: true });
  await rename(within(root, written), to);
}

/** The host's name of what lies in a jail. */
export function within(jailRoot: string, name: string): string {
  return path.join(jailRoot, name);
}

/** The log has a name in the jail; the console is the standard output that Firecracker is started with. */
async function makePipes({ files, root }: Jail, uid: number): Promise<void> {
  await run("mkfifo", ["-m", "600", "--", files.console, files.log]);
  await chown(files.log, uid, jailsGid);
  await link(files.log, within(root, inJail.log));
}

async function placeBoot({ root }: Jail, { start, vcpus, memoryMib, network }: VmSpec): Promise<void> {
  if (start.from !== "boot") return;
  await place(start.kernel, within(root, inJail.kernel));
  await place(start.initramfs, within(root, inJail.initramfs));
  const configuration = bootConfiguration({ vcpus, memoryMib }, network.tap);
  await writeFile(within(root, inJail.config), JSON.stringify(configuration), { mode: 0o444 });
}

async function placeFrozen({ root }: Jail, { start, memory, memoryMib }: VmSpec): Promise<void> {
  if (start.from !== "frozen") return;
  const damaged = (file: string) => (cause: unknown) => {
    throw isMissingFile(cause) ? new WrennError("snapshot_damaged", { message: `${file} is missing.`, cause }) : cause;
  };
  const deviceState = within(root, inJail.deviceState);
  await copyFile(start.deviceState, deviceState).catch(damaged(start.deviceState));
  await chmod(deviceState, 0o444);
  if (memory.backend === "uffd") {
    await link(memory.socket, within(root, inJail.pagerSocket)).catch((cause: unknown) => {
      throw new WrennError("engine_failed", { message: `No pager listens on ${memory.socket}.`, cause });
    });
    return;
  }
  if (memory.backend === "layers") {
    throw new WrennError("engine_failed", { message: "Firecracker maps its memory from one file." });
  }
  await placeMemory(memory.path, memoryMib * mebibyte, within(root, inJail.memory)).catch(damaged(memory.path));
}

/** Never a copy: clean pages of all VMs with this memory are shared, as those of one file. */
async function placeMemory(file: string, bytes: number, place: string): Promise<void> {
  const { size } = await stat(file);
  if (size !== bytes) {
    const message = `${file} has ${size} bytes; the guest's memory has ${bytes}.`;
    throw new WrennError("snapshot_damaged", { message });
  }
  // It stays root's, and nobody may write it. The group reads it under the name in a jail only: its directory is closed to all others.
  await chown(file, 0, jailsGid);
  await chmod(file, 0o440);
  await link(file, place);
}

async function placeDisk({ disk }: VmSpec, place: string): Promise<void> {
  const missing = (cause: unknown): never => {
    throw new WrennError("engine_failed", { message: `${disk.path}, the sandbox's disk, is not there.`, cause });
  };
  if (disk.format !== "raw") {
    throw new WrennError("engine_failed", {
      message: `Firecracker cannot open ${disk.path}, which is ${disk.format}.`,
    });
  }
  try {
    await link(disk.path, place);
  } catch (error) {
    if (!hasErrno(error, "EXDEV")) return missing(error);
    const device = await stat(disk.path);
    if (!device.isBlockDevice()) return missing(error);
    await run("mknod", ["-m", "600", "--", place, "b", ...numbersOf(device.rdev)]);
    await chown(place, device.uid, device.gid);
  }
}

/** The numbers of a device, as the C library packs them (makedev(3)). */
function numbersOf(rdev: number): [major: string, minor: string] {
  return [String((rdev >>> 8) & 0xfff), String((rdev & 0xff) | ((rdev >>> 12) & 0xfff00))];
}

/** A second name, or, from another file system, a copy (of its blocks where they can be shared). */
async function place(file: string, name: string): Promise<void> {
  try {
    await link(file, name);
  } catch (error) {
    if (!hasErrno(error, "EXDEV")) throw error;
    await copyFile(file, name, constants.COPYFILE_FICLONE);
  }
}
