/** A sandbox as the host agent tells of it: what is written down, and what is being done to it right now. */
import type { SandboxEntry } from "./context.ts";
import type { Journal } from "./journal.ts";

export type ListedState =
  | "creating"
  | "running"
  | "pausing"
  | "paused"
  | "resuming"
  | "snapshotting"
  | "dead"
  | "destroying";

export interface Listing {
  readonly journal: Journal;
  readonly state: ListedState;
}

export function describe({ journal, operation }: SandboxEntry): Listing {
  return { journal, state: stateOf(journal, operation?.kind) };
}

function stateOf(
  { state }: Journal,
  operation: NonNullable<SandboxEntry["operation"]>["kind"] | undefined,
): ListedState {
  switch (state) {
    case "running":
      if (operation === "pause") return "pausing";
      return operation === "snapshot" || operation === "fork" ? "snapshotting" : "running";
    case "paused":
      return operation === "resume" ? "resuming" : "paused";
    case "recovering":
      return "resuming";
    case "dead":
      return operation === "recover" ? "resuming" : "dead";
    case "creating":
    case "resuming":
    case "destroying":
      return state;
    default:
      return state satisfies never;
  }
}
