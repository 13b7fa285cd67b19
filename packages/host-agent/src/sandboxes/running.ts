/** What operations on a running VM have to know of it. */
import { WrennError } from "@wrenn/contract";
import type { CaptureSubject } from "./capture.ts";
import type { Holdings } from "./context.ts";
import { factsOf, type Journal, recoverySourcesOf, type RunningJournal } from "./journal.ts";

export function captureSubject(running: RunningJournal, holdings: Holdings): CaptureSubject {
  const { machine, memory, disk } = running;
  return { facts: factsOf(running), holdings, machine, memory, disk };
}

/** Why a sandbox that does not run cannot do what only a running one can. */
export function notRunning(journal: Journal): WrennError {
  switch (journal.state) {
    case "paused":
      return new WrennError("sandbox_paused");
    case "dead":
      return new WrennError("sandbox_died", {
        message: `The sandbox's virtual machine has died. ${journal.death.message}`,
        details: { death: journal.death, recoverable: recoverySourcesOf(journal) },
      });
    default:
      return new WrennError("sandbox_state_conflict", {
        message: `The sandbox is not running: it is ${journal.state}.`,
        details: { state: journal.state },
      });
  }
}
