/** What this host has of frozen states, and what works on them. */
import type { Layout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import { flattenDisk } from "../disks/qcow2.ts";
import { FoldQueue } from "../memory/fold.ts";
import { Generations } from "../memory/generations.ts";
import { GoldenRecords } from "../memory/golden.ts";
import { PagerProgram } from "../memory/pager.ts";
import type { SandboxContext } from "./context.ts";

export type FrozenStates = Pick<SandboxContext, "pager" | "generations" | "golden" | "folds">;

/** @param goldenBytes what golden snapshots may take up of the disk */
export async function openFrozenStates(layout: Layout, goldenBytes: number, log: BaseLogger): Promise<FrozenStates> {
  const pager = new PagerProgram(layout);
  const generations = await Generations.open(layout, pager);
  return {
    pager,
    generations,
    golden: new GoldenRecords(layout, goldenBytes),
    folds: new FoldQueue({ generations, pager, flattenDisk, log }),
  };
}
