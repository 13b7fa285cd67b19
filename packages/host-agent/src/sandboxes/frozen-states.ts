/** What this host has of frozen states, and what works on them. */
import type { Layout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { HostDisks } from "../disks/host-disks.ts";
import { type FoldContext, FoldQueue } from "../memory/fold.ts";
import { Generations } from "../memory/generations.ts";
import { GoldenRecords } from "../memory/golden.ts";
import { PagerProgram } from "../memory/pager.ts";
import type { RunStep } from "../run-step.ts";
import type { SandboxContext } from "./context.ts";

export type FrozenStates = Pick<SandboxContext, "pager" | "generations" | "golden" | "folds">;

export interface FrozenStatesOptions {
  readonly disks: HostDisks;
  /** What golden snapshots may take up of the disk. */
  readonly goldenBytes: number;
  /** Called when frozen states may be needed no more. */
  readonly suspectGarbage: () => void;
  readonly runStep: RunStep;
  readonly log: BaseLogger;
}

export async function openFrozenStates(
  layout: Layout,
  { disks, goldenBytes, suspectGarbage, runStep, log }: FrozenStatesOptions,
): Promise<FrozenStates> {
  const flattenDisk: FoldContext["flattenDisk"] = (format, options, signal) =>
    disks.of(format).flatten(options, signal);
  const pager = new PagerProgram(layout);
  const generations = await Generations.open(layout, pager);
  return {
    pager,
    generations,
    golden: new GoldenRecords(layout, goldenBytes),
    folds: new FoldQueue({ generations, pager, flattenDisk, suspectGarbage, runStep, log }),
  };
}
