/** For tests: which engines the contract is tried on here, and why one is not. */
import { layoutFromEnvironment } from "@wrenn/system";
import { pino } from "pino";
import { findBootFiles } from "../../disks/boot-files.ts";
import type { DiskChoice } from "../../disks/choice.ts";
import { disksUnderTest } from "../../disks/testing/disks-under-test.ts";
import { Cgroups } from "../cgroups.ts";
import type { EngineChoice } from "../choose.ts";
import { detectQemu } from "../qemu/detect.ts";
import { decideKvm } from "../qemu/kvm.ts";
import { engineUnderTest } from "./engine-under-test.ts";

export interface ContractEngine {
  /** As it is reported. */
  readonly title: string;
  readonly choice: EngineChoice;
  readonly disks: DiskChoice;
  readonly skipped: boolean;
}

const variables = ["WRENN_FIRECRACKER_BIN", "WRENN_JAILER_BIN"] as const;

export async function contractEngines(): Promise<ContractEngine[]> {
  const obstacle = await firecrackerObstacle();
  const reason = obstacle === null ? "" : `, skipped: ${obstacle}`;
  const firecracker: ContractEngine = {
    title: `firecracker${reason}`,
    choice: "firecracker",
    disks: "dm-snapshot",
    skipped: obstacle !== null,
  };
  if (engineUnderTest === "firecracker") return [firecracker];
  return [{ title: engineUnderTest, choice: engineUnderTest, disks: disksUnderTest, skipped: false }, firecracker];
}

/** The programs that the environment names. */
export function firecrackerPrograms(): { readonly firecracker: string; readonly jailer: string } {
  const [firecracker = "", jailer = ""] = variables.map((name) => process.env[name]);
  return { firecracker, jailer };
}

async function firecrackerObstacle(): Promise<string | null> {
  const unset = variables.filter((name) => (process.env[name] ?? "") === "");
  if (unset.length > 0) return `${unset.join(" and ")} not set`;
  const layout = layoutFromEnvironment();
  const cgroups = await Cgroups.open("ec00", pino({ level: "silent" }));
  try {
    const { path: qemu } = await detectQemu();
    const { usable, reason } = await decideKvm(layout, cgroups, { qemu, ...(await findBootFiles(layout)) });
    return usable ? null : reason;
  } finally {
    await cgroups.close();
  }
}
