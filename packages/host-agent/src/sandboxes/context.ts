/** What every operation on sandboxes works with, and what one sandbox holds of its host. */
import type { Layout, ProcessIdentity, SandboxLayout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { Cgroups } from "../engines/cgroups.ts";
import type { VirtualMachine } from "../engines/engine.ts";
import type { Engines } from "../engines/engines.ts";
import type { Slot, SlotPool } from "../network/slot-pool.ts";
import type { Admission, MemoryPromise } from "./admission.ts";
import type { Journal } from "./journal.ts";

export interface SandboxContext {
  readonly layout: Layout;
  readonly engines: Pick<Engines, "current">;
  readonly slots: SlotPool;
  readonly cgroups: Cgroups;
  readonly admission: Admission;
  /** Resolvers that guests are given. */
  readonly dns: readonly string[];
  readonly log: BaseLogger;
}

/** What a sandbox holds. Each is null once it is freed, or as long as it has not been taken. */
export interface Holdings {
  readonly files: SandboxLayout;
  slot: Slot | null;
  vm: VirtualMachine | null;
  /** The engine's process; known a little before there is a `vm` to speak of. */
  process: ProcessIdentity | null;
  memory: MemoryPromise | null;
}

/** One sandbox in memory: its journal as last written, what it holds, and what is being done to it. */
export interface SandboxEntry {
  journal: Journal;
  readonly holdings: Holdings;
  /** Aborted when the sandbox can no longer be reached, so that its tunnels end. */
  readonly gone: AbortController;
  operation: { readonly kind: OperationKind; readonly done: Promise<void>; readonly abort: AbortController } | null;
}

export type OperationKind = "create" | "destroy" | "reap";
