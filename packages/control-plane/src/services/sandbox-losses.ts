/** Why a connection into a sandbox broke: because the sandbox is gone, and of what, or for no reason of its own. */
import { deadlines, isErrorCode, WrennError } from "@wrenn/contract";
import type { ErrorCode, SandboxId } from "@wrenn/contract";
import { pollUntil } from "@wrenn/system";
import { isDatabaseAway } from "../store/database.ts";
import type { Store } from "../store/database.ts";
import { findSandbox } from "../store/sandboxes.ts";
import type { SandboxRow } from "../store/schema.ts";
import type { Guest } from "./guests.ts";

export interface SandboxLossesOptions {
  readonly store: Store;
  /** A host did not let somebody into a sandbox that should run, or its connection broke. */
  readonly onTunnelFailure: (id: SandboxId) => void;
}

/** What a call of a guest agent fails with when its sandbox is gone, and nobody but its host knows yet. */
const mayBeLoss: ReadonlySet<ErrorCode> = new Set([
  "connection_lost",
  "port_closed",
  "sandbox_not_found",
  "sandbox_state_conflict",
]);

const lookAgainMs = 100;

export class SandboxLosses {
  readonly #with: SandboxLossesOptions;

  constructor(options: SandboxLossesOptions) {
    this.#with = options;
  }

  /**
   * What to tell a caller whose call of the guest agent failed: why the sandbox died, where it did (`guest_panicked`, `vm_died`,
   * `sandbox_not_found`, …), or that it was paused (`sandbox_paused`, `idle_timeout`), else the failure itself. May take some seconds, because a death is known to the host first.
   */
  async explain(guest: Guest, failure: WrennError): Promise<WrennError> {
    if (!mayBeLoss.has(failure.code)) return failure;
    this.#with.onTunnelFailure(guest.sandboxId);
    const look = async (): Promise<WrennError | null> =>
      (await this.#whyGone(guest.sandboxId)) ?? ((await answers(guest)) ? failure : null);
    return (await pollUntil(look, { timeoutMs: deadlines.sandboxLoss, intervalMs: lookAgainMs })) ?? failure;
  }

  async #whyGone(id: SandboxId): Promise<WrennError | null> {
    try {
      return reasonOf(await findSandbox(this.#with.store, id));
    } catch (error) {
      // Nobody can say now; the guest itself may.
      if (isDatabaseAway(error)) return null;
      throw error;
    }
  }
}

/** Why there is nothing to be reached any more: a connection breaks only once a pause can no longer fail; null for a sandbox that should still be there. */
function reasonOf(row: SandboxRow | null): WrennError | null {
  const destroyed = new WrennError("sandbox_not_found", { message: "The sandbox has been destroyed." });
  if (row === null) return destroyed;
  const { status, status_reason_code: code, status_reason_message: message } = row;
  if (status === "paused" || status === "pausing") {
    return new WrennError(code === "idle_timeout" ? "idle_timeout" : "sandbox_paused", {
      details: { status: "paused" },
    });
  }
  if (status !== "error" && status !== "stopping" && status !== "stopped") return null;
  const said = message === null ? {} : { message };
  if (code !== null && isErrorCode(code)) return new WrennError(code, said);
  return status === "error" ? new WrennError("vm_died", said) : destroyed;
}

/** Whether the guest agent is there: then only the connection broke. */
async function answers(guest: Guest): Promise<boolean> {
  try {
    await guest.processes.list({}, { timeoutMs: deadlines.sandboxLoss });
    return true;
  } catch {
    return false;
  }
}
