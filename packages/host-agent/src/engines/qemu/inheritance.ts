/**
 * What QEMU gets from its parent because its own user may not open it: the library (native/memory-preload) that puts the guest's memory
 * where QEMU would have allocated some, that memory, and the state of a frozen guest's devices.
 */
import { type FileHandle, open, readdir, readFile, readlink, stat } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { firstInherited, isMissingFile } from "@wrenn/system";
import type { GuestMemory, VmSpec } from "../engine.ts";

const mebibyte = 1_048_576;

/** Since Linux 6.1. Whoever holds it open may make userfaultfds, whatever else its user may do. */
const userfaultfdDevice = "/dev/userfaultfd";

/** Where QEMU finds what it inherits, after its standard streams: behind the memory, which may be several files, the device state. */
const descriptors = { library: firstInherited, memory: firstInherited + 1 } as const;

interface MappedFile {
  readonly handle: FileHandle;
  /** How much of it is mapped in one piece; null where that depends. */
  readonly bytes: number | null;
}

export interface Inheritance {
  /** This process's descriptors, in the order QEMU gets them. */
  readonly inherited: readonly number[];
  /** What tells the library of them; for QEMU alone, not for the programs that start it. */
  readonly environment: readonly string[];
  /** The device state's descriptor, as QEMU has it. */
  readonly deviceState: number;
  /**
   * Makes sure that the guest has the memory meant for it. The dynamic loader goes on without a library that it cannot load, and the guest
   * would then run in memory that is empty, or that nobody could capture.
   * @throws WrennError `engine_failed`
   */
  assertTaken(pid: number): Promise<void>;
  /** QEMU has descriptors of its own by then. */
  close(): Promise<void>;
}

/** @throws WrennError `boot_files_missing`, `snapshot_damaged`, or `engine_failed` where the kernel has no userfaultfd */
export async function openInheritance(spec: VmSpec, memoryLibrary: string): Promise<Inheritance> {
  const { memory, start } = spec;
  const bytes = spec.memoryMib * mebibyte;
  const handles: FileHandle[] = [];
  const close = async (): Promise<void> => {
    for (const handle of handles) await handle.close();
  };
  try {
    handles.push(await openLibrary(memoryLibrary));
    const mapped = await openMemory(memory, bytes, handles);
    const deviceState = firstInherited + handles.length;
    if (start.from === "frozen") handles.push(await openFrozen(start.deviceState));
    return {
      inherited: handles.map(({ fd }) => fd),
      // The library by its descriptor, because the loader would end its path at a blank or a colon.
      environment: [`LD_PRELOAD=/proc/self/fd/${descriptors.library}`, `WRENN_GUEST_MEMORY=${describe(memory, bytes)}`],
      deviceState,
      assertTaken: async (pid) => {
        const taken = mapped === null ? await hasUserfaultfd(pid) : await maps(pid, mapped);
        if (!taken) throw new WrennError("engine_failed", { message: "QEMU runs without the memory it was given." });
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function describe(memory: GuestMemory, bytes: number): string {
  const size = `size=${bytes}`;
  switch (memory.backend) {
    case "file":
      return `${size},file=${descriptors.memory}`;
    case "layers":
      return `${size},image=${descriptors.memory},layers=${memory.layers.length}`;
    case "uffd":
      return `${size},uffd=${descriptors.memory},socket=${memory.socket}`;
    default:
      return memory satisfies never;
  }
}

/**
 * Opens what memory is made of.
 * @param handles where it is added, for who inherits and who closes
 * @returns a file that is mapped, and how much of it at once, where that is known; null where a pager brings the pages
 */
async function openMemory(memory: GuestMemory, bytes: number, handles: FileHandle[]): Promise<MappedFile | null> {
  switch (memory.backend) {
    case "file": {
      const image = await openImage(memory.path, bytes);
      handles.push(image);
      return { handle: image, bytes };
    }
    case "layers": {
      handles.push(await openFrozen(memory.header));
      const layers: FileHandle[] = [];
      for (const layer of memory.layers) {
        const handle = await openFrozen(layer);
        handles.push(handle);
        layers.push(handle);
      }
      // A header names no layer that nothing lies in.
      const [layer] = layers;
      return layer === undefined ? null : { handle: layer, bytes: null };
    }
    case "uffd":
      handles.push(await openUserfaultfdDevice());
      return null;
    default:
      return memory satisfies never;
  }
}

async function openLibrary(file: string): Promise<FileHandle> {
  return openOr(file, "r", (cause) => {
    return new WrennError("boot_files_missing", { message: `${file} does not exist on this host.`, cause });
  });
}

async function openUserfaultfdDevice(): Promise<FileHandle> {
  return openOr(userfaultfdDevice, "r+", (cause) => {
    const message = `This machine has no ${userfaultfdDevice}, without which memory cannot be filled as it is touched.`;
    return new WrennError("engine_failed", { message, suggestion: "Use Linux 6.1 or newer.", cause });
  });
}

async function openFrozen(file: string): Promise<FileHandle> {
  return openOr(file, "r", (cause) => new WrennError("snapshot_damaged", { message: `${file} is missing.`, cause }));
}

/** A guest that touched a page beyond the end of its image would take QEMU down with it. */
async function openImage(file: string, bytes: number): Promise<FileHandle> {
  const handle = await openFrozen(file);
  const { size } = await handle.stat();
  if (size === bytes) return handle;
  await handle.close();
  throw new WrennError("snapshot_damaged", { message: `${file} has ${size} bytes; the guest's memory has ${bytes}.` });
}

async function openOr(file: string, flags: string, missing: (cause: unknown) => WrennError): Promise<FileHandle> {
  try {
    return await open(file, flags);
  } catch (error) {
    throw isMissingFile(error) ? missing(error) : error;
  }
}

/** Whether the process maps the file. Its path and the device in /proc/PID/maps are not to be relied on (links, btrfs). */
async function maps(pid: number, { handle, bytes }: MappedFile): Promise<boolean> {
  const { dev, ino } = await handle.stat();
  for (const line of (await readFile(`/proc/${pid}/maps`, "utf8")).split("\n")) {
    const [range = "", , , , inode] = line.split(" ");
    const [from = "", to = ""] = range.split("-");
    const length = Number.parseInt(to, 16) - Number.parseInt(from, 16);
    if (inode !== String(ino) || (bytes !== null && length !== bytes)) continue;
    const mapped = await stat(`/proc/${pid}/map_files/${range}`);
    if (mapped.dev === dev && mapped.ino === ino) return true;
  }
  return false;
}

/** The library keeps one only after it has registered the guest's memory with it. */
async function hasUserfaultfd(pid: number): Promise<boolean> {
  const directory = `/proc/${pid}/fd`;
  for (const name of await readdir(directory)) {
    try {
      if ((await readlink(`${directory}/${name}`)) === "anon_inode:[userfaultfd]") return true;
    } catch (error) {
      if (!isMissingFile(error)) throw error;
    }
  }
  return false;
}
