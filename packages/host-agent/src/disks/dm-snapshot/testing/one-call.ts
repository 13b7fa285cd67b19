/** For tests: a process that does one thing to a disk, so that it can be killed in the middle of it. */
import { wrennLayout } from "@wrenn/system";
import type { SandboxDisk } from "../../disks.ts";
import { DmSnapshotDisks } from "../dm-snapshot-disks.ts";

export interface OneCall {
  readonly root: string;
  readonly call: "attach" | "detach" | "switchOverlay";
  readonly disk: SandboxDisk;
}

const { root, call, disk } = JSON.parse(process.argv[2] ?? "") as OneCall;
const disks = new DmSnapshotDisks(wrennLayout(root));
if (call === "attach") await disks.attach(disk);
else if (call === "detach") await disks.detach(disk.sandboxId);
else await disks.switchOverlay({}, disk);
