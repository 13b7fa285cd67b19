/** What the environment asks this machine to run sandboxes with: how much a missing part matters depends on it. */
import type { FirecrackerPaths } from "@wrenn/host-agent";
import type { Outcome } from "./check.ts";

/** `required`: nothing else will do. `wanted`: something lesser takes its place. `unneeded`: it is not used. */
export type Need = "required" | "wanted" | "unneeded";

export interface Needs {
  /** Where Firecracker and its jailer were found. */
  readonly programs: FirecrackerPaths;
  readonly firecracker: Need;
  readonly kvm: Need;
  /** Disks of device-mapper, which Firecracker cannot do without. */
  readonly deviceMapper: Need;
  /** Why Firecracker is unneeded where it is. */
  readonly withoutFirecracker: string;
}

/** @param environment only WRENN_ENGINE and WRENN_DISKS are looked at; what is no choice, the host agent refuses */
export function needsOf(environment: NodeJS.ProcessEnv, programs: FirecrackerPaths): Needs {
  const engine = environment["WRENN_ENGINE"] ?? "auto";
  const disks = environment["WRENN_DISKS"] ?? "auto";
  const installed = programs.firecracker !== null || programs.jailer !== null;
  const firecracker: Need =
    engine === "firecracker" ? "required" : engine === "auto" && installed && disks !== "qcow2" ? "wanted" : "unneeded";
  return {
    programs,
    firecracker,
    kvm: engine === "firecracker" || engine === "kvm" ? "required" : engine === "tcg" ? "unneeded" : "wanted",
    deviceMapper: firecracker === "required" || disks === "dm-snapshot" ? "required" : firecracker,
    withoutFirecracker:
      engine !== "auto"
        ? `WRENN_ENGINE=${engine}`
        : installed
          ? `WRENN_DISKS=${disks}`
          : "no Firecracker is installed, so QEMU is used",
  };
}

/** The outcome of something that is missing or broken, by how much it is needed. */
export function missing(
  need: Need,
  { finding, why, remedy, unneeded }: { finding: string; why: string; remedy: string; unneeded: string },
): Outcome {
  if (need === "unneeded") return { status: "unneeded", finding: `${finding}; not needed (${unneeded})` };
  return { status: need === "required" ? "failed" : "warning", finding, why, remedy };
}
