/** Creates a sandbox: room, slot, journal, disk, cgroup, engine, guest. Each step has its undo beside it. */
import { chmod, chown, mkdir } from "node:fs/promises";
import {
  engineMemoryOverheadMib,
  type SandboxId,
  sandboxLimits,
  type TeamId,
  type TemplateId,
  WrennError,
} from "@wrenn/contract";
import { hasErrno, runSteps, type Step, type StepTiming, syncDirectory } from "@wrenn/system";
import { findBootFiles, findTemplate } from "../disks/boot-files.ts";
import { createOverlay, removeOverlay } from "../disks/qcow2.ts";
import type { CgroupLimits, CgroupMembership } from "../engines/cgroups.ts";
import { makeBlankMemory } from "../engines/blank-memory.ts";
import type { Engine, VirtualMachine } from "../engines/engine.ts";
import type { Slot } from "../network/slot-pool.ts";
import { awaitBoot, bootWithRetry, whileAlive } from "./boot.ts";
import type { Holdings, SandboxContext } from "./context.ts";
import { endEngine, releaseMemory, releaseSlot, removeDirectory, removeDisk } from "./free.ts";
import { initialiseGuest } from "./guest-client.ts";
import { type Journal, type RunningJournal, type SandboxFacts, writeJournal } from "./journal.ts";

export interface CreateRequest {
  readonly sandboxId: SandboxId;
  readonly teamId: TeamId;
  readonly templateTeamId: TeamId;
  readonly templateId: TemplateId;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
  readonly envs: Readonly<Record<string, string>>;
  readonly accessToken: string;
}

/** Where a creation tells how far it has got. */
export interface CreationProgress {
  readonly holdings: Holdings;
  /** The journal as last written. */
  journal: Journal;
}

/** Threads of QEMU besides one per vCPU: its main loop, and up to 64 workers for disk requests. */
const engineThreads = 96;

/** The facts of a sandbox that is about to be created. */
export function factsOfRequest(request: CreateRequest, engine: Engine): SandboxFacts {
  const { sandboxId, teamId, templateTeamId, templateId, vcpus, memoryMib, diskMib } = request;
  return {
    version: 1,
    sandboxId,
    teamId,
    template: { teamId: templateTeamId, templateId },
    vcpus,
    memoryMib,
    diskMib,
    engine: engine.kind,
    createdAt: new Date().toISOString(),
  };
}

/**
 * Resolves once the guest has taken its configuration and the journal says `running`. When a step fails, or the signal is aborted,
 * everything taken so far is given back first; what resists is kept in the journal for a later destroy.
 */
export async function createSandbox(
  context: SandboxContext,
  engine: Engine,
  request: CreateRequest,
  progress: CreationProgress,
  signal: AbortSignal,
): Promise<RunningJournal> {
  const { layout, cgroups, slots, admission, dns } = context;
  const { holdings } = progress;
  const { sandboxId: id } = request;
  const facts = factsOfRequest(request, engine);
  const template = await findTemplate(layout, request.templateTeamId, request.templateId);
  const boot = await findBootFiles(layout);
  assertSizes(request, template.diskMib);

  let membership: CgroupMembership = { procsFiles: [] };
  const record = async (journal: Journal): Promise<void> => {
    await writeJournal(layout, journal);
    progress.journal = journal;
  };
  const slot = (): Slot => required(holdings.slot, "slot");
  const vm = (): VirtualMachine => required(holdings.vm, "VM");
  const makeDisk = async (): Promise<void> => {
    const backing = { path: template.rootfs, format: "raw" } as const;
    await removeOverlay(holdings.files.overlay);
    await createOverlay({ file: holdings.files.overlay, backing, sizeMib: request.diskMib, uid: slot().uid });
  };

  const steps: Step[] = [
    {
      name: "admit",
      run: async () => {
        holdings.memory = await admission.admit(request.memoryMib);
      },
      undo: async () => releaseMemory(holdings),
    },
    {
      // Needs no journal: the pool itself removes slots that no journal names.
      name: "take a slot",
      run: async () => {
        holdings.slot = await slots.acquire(signal);
      },
      undo: () => releaseSlot(context, holdings),
    },
    {
      name: "journal",
      run: async () => {
        await mkdir(holdings.files.directory, { mode: 0o700 });
        await syncDirectory(layout.sandboxes);
        await record({ ...facts, state: "creating", slot: slot().index, process: null });
      },
      undo: async () => {
        const { slot: taken, process } = holdings;
        if (process === null) await removeDirectory(context, id);
        else await record({ ...facts, state: "destroying", slot: taken?.index ?? null, process });
      },
    },
    {
      name: "make the disk",
      run: async () => {
        await openToEngine(holdings.files.directory, slot().uid);
        await makeDisk();
        await makeBlankMemory(holdings.files.blankMemory, request.memoryMib);
      },
      undo: () => removeDisk(holdings),
    },
    {
      name: "make the cgroup",
      run: async () => {
        membership = await cgroups.create(id, cgroupLimits(request));
      },
      undo: () => cgroups.remove(id),
    },
    {
      name: "boot",
      run: () =>
        bootWithRetry(signal, async (attempt) => {
          if (attempt > 1) {
            await endEngine(holdings);
            await makeDisk();
          }
          holdings.vm = await engine.start(
            {
              ...request,
              start: { from: "boot", kernel: boot.kernel, initramfs: boot.initramfs },
              memory: { backend: "file", path: holdings.files.blankMemory },
              overlay: holdings.files.overlay,
              files: holdings.files,
              network: slot(),
              uid: slot().uid,
              cgroup: membership,
            },
            async (process) => {
              holdings.process = process;
              await record({ ...facts, state: "creating", slot: slot().index, process });
            },
            signal,
          );
          await awaitBoot(vm(), slot().address, signal);
        }),
      undo: () => endEngine(holdings),
    },
    {
      name: "configure the guest",
      run: () =>
        whileAlive(vm(), signal, (alive) =>
          initialiseGuest(
            slot().address,
            { sandboxId: id, envs: request.envs, accessToken: request.accessToken, dns },
            alive,
          ),
        ),
    },
  ];
  const timings: StepTiming[] = [];
  let running: RunningJournal | undefined;
  steps.push({
    name: "commit",
    run: async () => {
      running = { ...facts, state: "running", slot: slot().index, process: vm().identity, steps: timings };
      await record(running);
    },
  });
  try {
    await runSteps(steps.map((step) => stoppable(step, signal, timings)));
    return required(running ?? null, "journal");
  } catch (error) {
    throw hasErrno(error, "ENOSPC") ? new WrennError("host_out_of_disk", { cause: error }) : error;
  } finally {
    holdings.memory?.settle();
  }
}

/** Sizes as the platform allows them, checked here again because this is where they cost. */
function assertSizes(request: CreateRequest, templateDiskMib: number): void {
  for (const name of ["vcpus", "memoryMib", "diskMib"] as const) {
    const { min, max } = sandboxLimits[name];
    const value = request[name];
    if (value < min || value > max) {
      throw new WrennError("invalid_request", {
        message: `${name} is ${value}; it must be from ${min} to ${max}.`,
        details: { field: name, min, max },
      });
    }
  }
  if (request.diskMib < templateDiskMib) {
    throw new WrennError("invalid_request", {
      message: `diskMib is ${request.diskMib}; this template needs at least ${templateDiskMib}.`,
      details: { field: "diskMib", min: templateDiskMib },
    });
  }
}

function cgroupLimits(request: CreateRequest): CgroupLimits {
  return {
    memoryMib: request.memoryMib + engineMemoryOverheadMib,
    // One more than the guest's: QEMU's own thread moves its network and disk traffic.
    cpus: request.vcpus + 1,
    pids: request.vcpus + engineThreads,
  };
}

/**
 * Lets the engine make its control socket in the sandbox's directory, by group; sticky, so that it cannot replace or remove
 * the journal and logs, which are root's.
 */
async function openToEngine(directory: string, uid: number): Promise<void> {
  await chown(directory, 0, uid);
  await chmod(directory, 0o1770);
}

/** The step, not begun once the creation has been aborted, and with its time noted when it is done. */
function stoppable(step: Step, signal: AbortSignal, timings: StepTiming[]): Step {
  return {
    ...step,
    run: async () => {
      signal.throwIfAborted();
      const start = performance.now();
      await step.run();
      timings.push({ step: step.name, milliseconds: performance.now() - start });
    },
  };
}

function required<Value>(value: Value | null, what: string): Value {
  if (value === null) throw new WrennError("internal", { message: `There is no ${what} at this step.` });
  return value;
}
