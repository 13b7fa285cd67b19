/** For tests: the block devices that the disks of one directory have taken from the kernel. */
import path from "node:path";
import type { Layout } from "@wrenn/system";
import { DeviceNames } from "../disks/dm-snapshot/device-names.ts";
import { blockDevices, loopDevices, mappedName } from "../disks/dm-snapshot/sysfs.ts";

/** Their names: of device-mapper's the given one, of loop devices the file behind it. */
export async function blockDevicesOf({ root }: Layout): Promise<string[]> {
  const names = new DeviceNames(root);
  const mapped = await Promise.all((await blockDevices("dm-")).map(mappedName));
  const files = (await loopDevices()).map(({ file }) => file);
  return [
    ...mapped.filter((name) => name !== null).filter((name) => names.isSandbox(name) || names.isShared(name)),
    ...files.filter((file) => file.startsWith(`${root}${path.sep}`)),
  ];
}
