/** What every operation on sandboxes works with, and what one sandbox holds of its host. */
import { setMaxListeners } from "node:events";
import { WrennError } from "@wrenn/contract";
import type { Layout, ProcessIdentity, SandboxLayout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { Disks } from "../disks/disks.ts";
import type { HostDisks } from "../disks/host-disks.ts";
import type { Cgroups } from "../engines/cgroups.ts";
import type { VirtualMachine } from "../engines/engine.ts";
import type { Engines } from "../engines/engines.ts";
import type { FoldQueue } from "../memory/fold.ts";
import type { Generations } from "../memory/generations.ts";
import type { GoldenRecords } from "../memory/golden.ts";
import type { PagerProgram } from "../memory/pager.ts";
import type { RunStep } from "../run-step.ts";
import type { Slot, SlotPool } from "../network/slot-pool.ts";
import type { Admission, MemoryPromise } from "./admission.ts";
import { type Journal, writeJournal } from "./journal.ts";
import type { MemoryChoice } from "./open-memory.ts";

export interface SandboxContext {
  readonly layout: Layout;
  readonly engines: Pick<Engines, "current">;
  readonly disks: HostDisks;
  readonly slots: SlotPool;
  readonly cgroups: Cgroups;
  readonly admission: Admission;
  readonly generations: Generations;
  readonly pager: PagerProgram;
  readonly golden: GoldenRecords;
  readonly folds: FoldQueue;
  readonly memoryChoice: MemoryChoice;
  /** Whether this host lets a pager serve the memory of a VM without privileges. */
  readonly servesPages: boolean;
  /** Frozen states may be needed no more. */
  readonly suspectGarbage: () => void;
  /** Resolvers that guests are given. */
  readonly dns: readonly string[];
  readonly runStep: RunStep;
  readonly log: BaseLogger;
}

/** What a sandbox holds. Each is null once it is freed, or as long as it has not been taken. */
export interface Holdings {
  readonly files: SandboxLayout;
  slot: Slot | null;
  vm: VirtualMachine | null;
  /** The engine's process; known a little before there is a `vm` to speak of. */
  process: ProcessIdentity | null;
  /** The process that serves the VM's memory, where one does. It ends with the VM by itself. */
  pager: ProcessIdentity | null;
  /** By which its disk is attached for the engine, or may be. */
  disks: Disks | null;
  memory: MemoryPromise | null;
}

/** One sandbox in memory: its journal as last written, what it holds, and what is being done to it. */
export interface SandboxEntry {
  journal: Journal;
  readonly holdings: Holdings;
  /** Aborted when the sandbox can no longer be reached, so that its tunnels end. Another when it can be reached again. */
  gone: AbortController;
  operation: { readonly kind: OperationKind; readonly done: Promise<void>; readonly abort: AbortController } | null;
}

export type OperationKind = "create" | "destroy" | "reap" | "pause" | "resume" | "snapshot" | "fork" | "recover";

export function noHoldings(files: SandboxLayout): Holdings {
  return { files, slot: null, vm: null, process: null, pager: null, disks: null, memory: null };
}

/** Writes down what is now true of a sandbox; memory follows the disk. */
export async function record(
  context: Pick<SandboxContext, "layout">,
  entry: { journal: Journal },
  journal: Journal,
): Promise<void> {
  await writeJournal(context.layout, journal);
  entry.journal = journal;
}

/** Aborted when the sandbox can no longer be reached. */
export function reachable(): AbortController {
  const gone = new AbortController();
  // One listener for each open tunnel, of which there may be any number.
  setMaxListeners(0, gone.signal);
  return gone;
}

/** What an earlier step has made. */
export function required<Value>(value: Value | null, what: string): Value {
  if (value === null) throw new WrennError("internal", { message: `There is no ${what} at this step.` });
  return value;
}
