/** Refusals of what only a running sandbox can do. */
import { WrennError } from "@wrenn/contract";
import { type Journal, recoverySourcesOf } from "./journal.ts";

/** Why a sandbox that does not run cannot do what only a running one can. */
export function notRunning(journal: Journal): WrennError {
  if (journal.state === "paused") return new WrennError("sandbox_paused");
  if (journal.state === "dead") {
    return new WrennError("sandbox_died", {
      message: `The sandbox's virtual machine has died. ${journal.death.message}`,
      details: { death: journal.death, recoverable: recoverySourcesOf(journal) },
    });
  }
  return new WrennError("sandbox_state_conflict", {
    message: `The sandbox is not running: it is ${journal.state}.`,
    details: { state: journal.state },
  });
}
