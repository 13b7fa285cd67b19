/** Gives back what a sandbox holds. Every part can be done again, so that a half-done freeing is continued by the next. */
import { rm } from "node:fs/promises";
import { deadlines, diskFormats, type SandboxId, WrennError } from "@wrenn/contract";
import {
  type ProcessIdentity,
  type SandboxLayout,
  signalProcess,
  syncDirectory,
  tryAll,
  tryAllAtOnce,
  waitForExit,
} from "@wrenn/system";
import { removeOverlay } from "../disks/overlay-files.ts";
import { findEngineProcesses } from "../engines/engines.ts";
import { removeSocket } from "../engines/qemu/engine.ts";
import type { Holdings, SandboxContext } from "./context.ts";

type FreeingContext = Pick<SandboxContext, "cgroups" | "slots" | "layout">;

/**
 * Frees all that a VM needs, and leaves the directory with its journal, logs and disk. Tries all parts.
 * @throws AggregateError naming what could not be freed
 */
export async function freeHoldings(context: FreeingContext, id: SandboxId, holdings: Holdings): Promise<void> {
  await tryAll([
    { name: "end the engine", run: () => endEngine(holdings) },
    { name: "end the pager", run: () => endPager(holdings) },
    { name: "detach the disk", run: () => detachDisk(id, holdings) },
    { name: "give back the memory", run: async () => releaseMemory(holdings) },
    {
      name: "free what they used",
      run: () =>
        tryAllAtOnce([
          { name: "remove the cgroup", run: () => context.cgroups.remove(id) },
          { name: "release the slot", run: () => releaseSlot(context, holdings) },
          { name: "remove what only the VM needed", run: () => removeRuntimeFiles(holdings.files) },
        ]),
    },
  ]);
}

/** Whether a freeing has left something, or there was none. */
export function holdsAnything({ slot, vm, process, pager, disks, memory }: Holdings): boolean {
  return [slot, vm, process, pager, disks, memory].some((held) => held !== null);
}

/** Ends the VM's engine, also one that was started but has not been spoken to. */
export async function endEngine(holdings: Holdings): Promise<void> {
  if (holdings.vm === null) {
    // An engine can overwrite its command line, by which it is found; the process that was written down is known without it.
    const known = holdings.process === null ? [] : [holdings.process];
    for (const identity of [...known, ...(await findEngineProcesses(holdings.files))]) await killProcess(identity);
  } else {
    await holdings.vm.kill();
    holdings.vm = null;
  }
  holdings.process = null;
}

/** It ends with its VM by itself; one whose VM has never come would wait for it. */
export async function endPager(holdings: Holdings): Promise<void> {
  if (holdings.pager === null) return;
  await killProcess(holdings.pager);
  holdings.pager = null;
}

/** After the engine, which has it open. */
export async function detachDisk(id: SandboxId, holdings: Holdings): Promise<void> {
  await holdings.disks?.detach(id);
  holdings.disks = null;
}

export function releaseMemory(holdings: Holdings): void {
  // An engine that could not be ended still has it.
  if (holdings.process !== null) return;
  holdings.memory?.release();
  holdings.memory = null;
}

export async function releaseSlot(context: Pick<SandboxContext, "slots">, holdings: Holdings): Promise<void> {
  // The slot's user could use a disk that could not be detached; nobody else may become that user.
  if (holdings.slot === null || holdings.disks !== null) return;
  await context.slots.release(holdings.slot);
  holdings.slot = null;
}

/** The sandbox's own disk, where nothing needs it any more. */
export async function removeOverlays(files: SandboxLayout): Promise<void> {
  for (const format of diskFormats) {
    await removeOverlay(files.overlay(format));
    await removeOverlay(files.otherOverlay(format));
  }
}

export async function removeRuntimeFiles(files: SandboxLayout): Promise<void> {
  for (const socket of [files.qmpSocket, files.pagerSocket]) await removeSocket(socket);
  const { blankMemory, deviceState, pagerStatus, workingSet, jail } = files;
  // Recursive: the engine's user could have put directories in their places.
  for (const file of [blankMemory, deviceState, pagerStatus, workingSet, jail.directory]) {
    await rm(file, { recursive: true, force: true });
  }
}

/** Removes the last of a sandbox, its journal included, so that the removal survives a power cut. */
export async function removeDirectory(context: Pick<SandboxContext, "layout">, id: SandboxId): Promise<void> {
  await rm(context.layout.sandbox(id).directory, { recursive: true, force: true });
  await syncDirectory(context.layout.sandboxes);
}

export async function killProcess(identity: ProcessIdentity): Promise<void> {
  await signalProcess(identity, "SIGKILL");
  if (!(await waitForExit(identity, deadlines.engineQuit))) {
    throw new WrennError("engine_failed", { message: `Process ${identity.pid} does not end although it was killed.` });
  }
}
