/** Loop devices: files as block devices. Each goes by itself with what lies on it, once `clearWhenUnused` was said of it. */
import { access } from "node:fs/promises";
import { deadlines, WrennError } from "@wrenn/contract";
import { run, runUnchecked } from "@wrenn/system";
import { devicesAbove, type LoopDevice, loopDevice } from "./sysfs.ts";

/**
 * Makes a file a block device.
 * @returns the kernel's name of it, for instance `loop7`
 * @throws WrennError `loop_devices_exhausted`, `disk_setup_failed` with losetup's words
 */
export async function attachLoop(file: string, mode: "read-only" | "read-write"): Promise<string> {
  const { exitCode, stdout, stderr } = await losetup([
    ...(mode === "read-only" ? ["--read-only"] : []),
    "--find",
    "--show",
    file,
  ]);
  if (exitCode === 0) return stdout.trim().replace(/^\/dev\//, "");
  await access(file);
  // losetup tells its failures apart by words only.
  if ((await losetup(["--find"])).exitCode !== 0) throw new WrennError("loop_devices_exhausted");
  throw new WrennError("disk_setup_failed", { message: `${file} cannot be made a block device: ${stderr.trim()}` });
}

/** Lets them go as soon as nothing lies on them and nobody has them open: at once, if so already. */
export async function clearWhenUnused(loops: readonly string[]): Promise<void> {
  if (loops.length === 0) return;
  await run("losetup", ["--detach", ...loops.map((name) => `/dev/${name}`)], { timeoutMs: deadlines.diskCommand });
}

/** Clears those of these that nothing lies on. */
export async function clearUnused(loops: readonly LoopDevice[]): Promise<void> {
  const unused: string[] = [];
  for (const { name, file } of loops) {
    // Its number may have been given to another file since.
    if ((await devicesAbove(name)).length === 0 && (await loopDevice(name))?.file === file) unused.push(name);
  }
  await clearWhenUnused(unused);
}

async function losetup(args: readonly string[]): ReturnType<typeof runUnchecked> {
  return runUnchecked("losetup", args, { timeoutMs: deadlines.diskCommand });
}
