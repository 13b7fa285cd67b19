/** What there is to do with a sandbox that has died. */
import type { RecoverySource, SandboxInfo } from "@wrenn/sdk";

const explanations: Readonly<Record<RecoverySource, string>> = {
  disk: "boots from the disk as the death left it",
  last_pause: "goes back to memory and disk of the last pause",
};

/** Commands, each with what it does. None for one that has not died, or of which nothing is left. */
export function recoveriesOf({ id, recoverable }: SandboxInfo): (readonly [command: string, does: string])[] {
  return recoverable.map((source) => [`wrenn recover ${id} --from ${source}`, explanations[source]]);
}
