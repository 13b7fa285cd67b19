/** Which format the disks of new sandboxes have on this host, and why. */
import { type DiskFormat, diskFormats } from "@wrenn/contract";
import { detectDmSnapshot, type DmVerdict } from "./dm-snapshot/detect.ts";

export const diskChoices = ["auto", ...diskFormats] as const;
/** `auto` is dm-snapshot where it works, and qcow2 elsewhere. */
export type DiskChoice = (typeof diskChoices)[number];

export interface ChosenDisks {
  readonly format: DiskFormat;
  /** In a sentence. */
  readonly reason: string;
  /** Whether disks of the format dm-snapshot can be used here, whatever was chosen. */
  readonly dmSnapshot: DmVerdict;
}

export async function chooseDisks(choice: DiskChoice): Promise<ChosenDisks> {
  return decide(choice, await detectDmSnapshot());
}

export function decide(choice: DiskChoice, dmSnapshot: DmVerdict): ChosenDisks {
  if (choice === "auto") {
    return { format: dmSnapshot.usable ? "dm-snapshot" : "qcow2", reason: dmSnapshot.reason, dmSnapshot };
  }
  const demanded = `WRENN_DISKS=${choice} demands it.`;
  const obstacle = choice === "dm-snapshot" && !dmSnapshot.usable ? ` ${dmSnapshot.reason}` : "";
  return { format: choice, reason: `${demanded}${obstacle}`, dmSnapshot };
}
