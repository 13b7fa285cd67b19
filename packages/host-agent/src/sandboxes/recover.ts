/** Starts again what has died: from the disk as its death left it, or from its last pause. Which, is for the caller to choose. */
import { WrennError } from "@wrenn/contract";
import { findBootFiles } from "../disks/boot-files.ts";
import type { Engine } from "../engines/engine.ts";
import { bringUp } from "./bring-up.ts";
import { reachable, record, type SandboxContext, type SandboxEntry } from "./context.ts";
import { freeHoldings, removeOverlays } from "./free.ts";
import { type DeadJournal, factsOf, type PausedJournal } from "./journal.ts";
import { StepClock } from "./step-clock.ts";

/** Boots, as a machine does after a power cut. A failure leaves it dead, with its disk. */
export async function recoverFromDisk(
  context: SandboxContext,
  engine: Engine,
  entry: SandboxEntry,
  dead: DeadJournal,
  accessToken: string,
  signal: AbortSignal,
): Promise<void> {
  const { sandboxId, lastPause, disk, death } = dead;
  const facts = { ...factsOf(dead), engine: engine.kind };
  const boot = await findBootFiles(context.layout);
  await freeHoldings(context, sandboxId, entry.holdings);
  await bringUp(
    context,
    engine,
    {
      operation: "recover",
      facts,
      source: { from: "boot", boot },
      disk,
      keepsOverlay: true,
      underWay: (held) => ({ ...facts, ...held, state: "recovering", lastPause, disk, death }),
      fallback: dead,
      lastPause,
      guest: { sandboxId, accessToken, frozen: null, envs: {}, dns: context.dns },
    },
    entry,
    signal,
    (running) => record(context, entry, running),
  );
  entry.gone = reachable();
}

/**
 * Gives up what was written since the last pause: the sandbox is paused again as it was then, for the caller to resume.
 * @throws WrennError `recovery_unavailable`, or why that pause cannot be resumed: then nothing is given up for it
 */
export async function rollBack(
  context: SandboxContext,
  engine: Engine,
  entry: SandboxEntry,
  dead: DeadJournal,
): Promise<PausedJournal> {
  if (dead.lastPause === null) {
    throw new WrennError("recovery_unavailable", {
      message: "The sandbox has never been paused, or that is not kept.",
    });
  }
  const manifest = await context.generations.read(dead.lastPause);
  await context.generations.assertRestorable(manifest, await engine.identify(dead));
  await freeHoldings(context, dead.sandboxId, entry.holdings);
  const paused: PausedJournal = {
    ...factsOf(dead),
    state: "paused",
    generation: manifest.id,
    pausedAt: manifest.createdAt,
    steps: [],
  };
  const clock = new StepClock(context, "recover", null);
  await clock.step({ name: "journal the pause", run: () => record(context, entry, paused) }).run();
  await clock.step({ name: "remove the overlay", run: () => removeOverlays(entry.holdings.files) }).run();
  return paused;
}
