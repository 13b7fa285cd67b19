/** Writes the state of a frozen VM into a new generation: the pages that changed, the state of its devices, its disk. */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { hasErrno, isMissingFile, writeDurably } from "@wrenn/system";
import type { MachineIdentity } from "../engines/engine.ts";
import type { GenerationDraft } from "../memory/generations.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import type { MappedMemory } from "../memory/pager.ts";
import { type Holdings, required, type SandboxContext } from "./context.ts";
import type { Disk, MemorySource, SandboxFacts } from "./journal.ts";

/** A running VM, as its journal and its engine describe it. */
export interface CaptureSubject {
  readonly facts: SandboxFacts;
  readonly holdings: Holdings;
  readonly machine: MachineIdentity;
  readonly memory: MemorySource;
  readonly disk: Disk;
}

/** What was captured while the VM stood still. */
export type CapturedState = Pick<GenerationManifest, "memory" | "deviceState" | "newBytes">;

/** Far above any state of a microvm's few devices, which take about 10 KiB. */
const maxDeviceStateBytes = 16_777_216;

/** Far above any list of pages that a pager records. */
const maxWorkingSetBytes = 4_194_304;

/** The VM must be frozen. All of it is durable when this resolves. */
export async function captureState(
  context: SandboxContext,
  subject: CaptureSubject,
  draft: GenerationDraft,
  signal: AbortSignal,
): Promise<CapturedState> {
  const { facts, holdings, memory } = subject;
  const parent = memory.parent === null ? null : await context.generations.read(memory.parent);
  const [captured, deviceState] = await Promise.all([
    context.pager.capture(
      {
        pid: required(holdings.process, "engine").pid,
        memoryMib: facts.memoryMib,
        mapped: mappedMemory(context, subject),
        parentHeader: parent === null ? null : context.layout.generation(parent.id).header(parent.memory.header),
        layer: draft.memoryLayer,
        header: draft.header,
      },
      signal,
    ),
    keepDeviceState(holdings.files.deviceState, draft.deviceState),
    keepWorkingSet(context, subject, draft),
  ]);
  const { layers, flat, extents, bytesWritten } = captured;
  return { memory: { header: draft.headerName, layers, flat, extents }, deviceState, newBytes: bytesWritten };
}

/** The manifest of a generation whose disk is `draft.diskLayer` on top of what the subject's overlay was laid over. */
export function describeGeneration(
  subject: CaptureSubject,
  draft: GenerationDraft,
  captured: CapturedState,
): GenerationManifest {
  const { facts, machine, disk } = subject;
  return {
    version: 1,
    id: draft.id,
    createdAt: new Date().toISOString(),
    sandboxId: facts.sandboxId,
    template: facts.template,
    vcpus: facts.vcpus,
    memoryMib: facts.memoryMib,
    diskMib: facts.diskMib,
    machine,
    disk: { layers: [draft.diskLayer, ...disk.layers], rootfs: disk.rootfs },
    ...captured,
  };
}

function mappedMemory(context: SandboxContext, { holdings, memory }: CaptureSubject): MappedMemory {
  if (memory.backend === "uffd") return { status: holdings.files.pagerStatus };
  return {
    file: memory.mapped === null ? holdings.files.blankMemory : context.layout.layer(memory.mapped).memory,
  };
}

async function keepDeviceState(from: string, to: string): Promise<GenerationManifest["deviceState"]> {
  const content = await readBounded(from, maxDeviceStateBytes);
  if (content === null) throw new WrennError("engine_failed", { message: "QEMU left no state of its devices." });
  await writeDurably(to, content);
  return { bytes: content.length, sha256: createHash("sha256").update(content).digest("hex") };
}

/** Which pages are needed first after a restore: as this VM's pager has seen it, else as it was known before. Only a hint. */
async function keepWorkingSet(context: SandboxContext, subject: CaptureSubject, draft: GenerationDraft): Promise<void> {
  const { holdings, memory } = subject;
  const known = memory.parent === null ? [] : [context.layout.generation(memory.parent).workingSet];
  for (const file of [holdings.files.workingSet, ...known]) {
    const content = await readBounded(file, maxWorkingSetBytes);
    if (content === null) continue;
    await writeDurably(draft.workingSet, content);
    return;
  }
}

/** Null when there is no plain file of that name and at most that size: the engine's user can put there what it likes. */
async function readBounded(file: string, maxBytes: number): Promise<Buffer | null> {
  let handle: FileHandle;
  try {
    handle = await open(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (isMissingFile(error) || hasErrno(error, "ELOOP")) return null;
    throw error;
  }
  try {
    const status = await handle.stat();
    return status.isFile() && status.size <= maxBytes ? await handle.readFile() : null;
  } finally {
    await handle.close();
  }
}
