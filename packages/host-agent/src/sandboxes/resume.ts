/** Resumes a paused sandbox in a new slot. Its generation stays: what the VM writes goes to a new overlay, and memory is mapped or copied. */
import type { Engine } from "../engines/engine.ts";
import { bringUp } from "./bring-up.ts";
import { reachable, record, type SandboxContext, type SandboxEntry } from "./context.ts";
import { freeHoldings, holdsAnything } from "./free.ts";
import { factsOf, type PausedJournal } from "./journal.ts";
import { diskOver } from "./own-disk.ts";

export async function resumeSandbox(
  context: SandboxContext,
  engine: Engine,
  entry: SandboxEntry,
  paused: PausedJournal,
  accessToken: string,
  signal: AbortSignal,
): Promise<void> {
  const { generation, pausedAt, sandboxId } = paused;
  // What the pause could not free. To look for what is not even known of takes long, and was done when the host agent started.
  if (holdsAnything(entry.holdings)) await freeHoldings(context, sandboxId, entry.holdings);
  await context.generations.using(generation, (manifest) =>
    bringUp(
      context,
      engine,
      {
        operation: "resume",
        facts: factsOf(paused),
        source: { from: "frozen", manifest },
        disk: diskOver(manifest.disk),
        keepsOverlay: false,
        underWay: (held) => ({ ...factsOf(paused), ...held, state: "resuming", generation, pausedAt }),
        fallback: paused,
        lastPause: generation,
        guest: { sandboxId, accessToken, frozen: { accessToken }, envs: null, dns: context.dns },
      },
      entry,
      signal,
      (running) => record(context, entry, running),
    ),
  );
  context.log.info({ sandboxId, generation, steps: entry.journal.steps }, "resumed");
  entry.gone = reachable();
}
