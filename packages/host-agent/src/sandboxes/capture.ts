/** Writes the state of a frozen VM into a new generation: the pages that changed, the state of its devices, its disk. */
import { rm } from "node:fs/promises";
import { required, type Holdings, type SandboxContext } from "./context.ts";
import type { MachineIdentity } from "../engines/engine.ts";
import type { GenerationContent, GenerationDraft } from "../memory/draft.ts";
import type { CaptureRequest, MemoryImage } from "../memory/pager.ts";
import { factsOf, type Disk, type MemorySource, type RunningJournal, type SandboxFacts } from "./journal.ts";

/** A running VM, as its journal describes it. */
export interface CaptureSubject {
  readonly facts: SandboxFacts;
  readonly holdings: Holdings;
  readonly machine: MachineIdentity;
  readonly memory: MemorySource;
  readonly disk: Disk;
}

export function captureSubject(running: RunningJournal, holdings: Holdings): CaptureSubject {
  const { machine, memory, disk } = running;
  return { facts: factsOf(running), holdings, machine, memory, disk };
}

/** Writes the memory that has changed. The VM must be frozen. What is written is durable when this resolves. */
export async function captureMemory(
  context: SandboxContext,
  subject: CaptureSubject,
  draft: GenerationDraft,
  signal: AbortSignal,
): Promise<MemoryImage> {
  const { facts, holdings, memory } = subject;
  const { layout, pager, generations } = context;
  const { writtenMemory } = holdings.files.jail;
  const vm = required(holdings.vm, "VM");
  const writes = vm.writeState !== undefined;
  await vm.writeState?.({ parent: memory.parent, id: draft.id });
  const write = (parentHeader: string | null): Promise<MemoryImage> =>
    pager.capture(
      {
        pid: required(holdings.process, "engine").pid,
        memoryMib: facts.memoryMib,
        mapped: writes ? { written: writtenMemory } : mappedMemory(context, subject),
        parentHeader,
        layer: draft.memoryLayer,
        header: draft.header,
      },
      signal,
    );
  try {
    if (memory.parent === null) return await write(null);
    return await generations.using(memory.parent, (parent) =>
      write(layout.generation(parent.id).header(parent.memory.header)),
    );
  } finally {
    if (writes) await rm(writtenMemory, { recursive: true, force: true });
  }
}

/** What is to be published: with `draft.diskLayer` on top of what the subject's overlay was laid over. */
export function contentOf(
  { facts, holdings, machine, disk }: CaptureSubject,
  draft: GenerationDraft,
  memory: MemoryImage,
): GenerationContent {
  const { sandboxId, template, vcpus, memoryMib, diskMib } = facts;
  return {
    sandboxId,
    template,
    vcpus,
    memoryMib,
    diskMib,
    machine,
    memory,
    deviceState: holdings.files.deviceState,
    disk: { format: disk.format, layers: [draft.diskLayer, ...disk.layers], rootfs: disk.rootfs },
  };
}

/** Which pages are needed first after a restore: as this VM's pager has seen it, else as it was known before. Only a hint. */
export async function keepWorkingSet(
  { generations, layout, log }: SandboxContext,
  { holdings, memory }: CaptureSubject,
  draft: GenerationDraft,
): Promise<void> {
  const recorded =
    memory.backend === "uffd"
      ? holdings.files.workingSet
      : memory.parent === null
        ? null
        : layout.generation(memory.parent).workingSet;
  if (recorded === null) return;
  try {
    await generations.keepWorkingSet(draft.id, recorded);
  } catch (error) {
    log.warn({ generation: draft.id, err: error }, "could not keep which pages are needed first");
  }
}

function mappedMemory(context: SandboxContext, { holdings, memory }: CaptureSubject): CaptureRequest["mapped"] {
  if (memory.backend === "uffd") return { status: holdings.files.pagerStatus };
  if (memory.mapped === null) return { file: holdings.files.blankMemory };
  const { memory: file } = context.layout.layer(memory.mapped);
  return memory.layered ? { layeredOver: file } : { file };
}
