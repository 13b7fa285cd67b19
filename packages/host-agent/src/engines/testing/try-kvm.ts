/** Before the tests in the lab: finds out once whether KVM works there, which host agents under test then know (`testing/host-agent-process.ts`). */
import { mkdir } from "node:fs/promises";
import { layoutFromEnvironment } from "@wrenn/system";
import { pino } from "pino";
import { findBootFiles } from "../../disks/boot-files.ts";
import { Cgroups } from "../cgroups.ts";
import { detectQemu } from "../qemu/detect.ts";
import { decideKvm } from "../qemu/kvm.ts";

export async function setup(): Promise<void> {
  const layout = layoutFromEnvironment();
  await mkdir(layout.run, { recursive: true, mode: 0o711 });
  const cgroups = await Cgroups.open("kvm0", pino({ level: "silent" }));
  try {
    const { path: qemu } = await detectQemu();
    await decideKvm(layout, cgroups, { qemu, ...(await findBootFiles(layout)) });
  } finally {
    await cgroups.close();
  }
}
