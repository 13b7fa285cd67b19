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

/** Where QEMU finds what it inherits: in this order, after its standard streams. */
const descriptors = { library: firstInherited, memory: firstInherited + 1, deviceState: firstInherited + 2 } as const;

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
    const source = memory.backend === "file" ? await openImage(memory.path, bytes) : await openUserfaultfdDevice();
    handles.push(source);
    if (start.from === "frozen") handles.push(await openFrozen(start.deviceState));
    return {
      inherited: handles.map(({ fd }) => fd),
      // The library by its descriptor, because the loader would end its path at a blank or a colon.
      environment: [`LD_PRELOAD=/proc/self/fd/${descriptors.library}`, `WRENN_GUEST_MEMORY=${describe(memory, bytes)}`],
      deviceState: descriptors.deviceState,
      assertTaken: async (pid) => {
        const taken = memory.backend === "file" ? await maps(pid, source, bytes) : await hasUserfaultfd(pid);
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
  const source =
    memory.backend === "file" ? `file=${descriptors.memory}` : `uffd=${descriptors.memory},socket=${memory.socket}`;
  return `size=${bytes},${source}`;
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

/** Whether the process maps the file, as a whole. Its path and the device in /proc/PID/maps are not to be relied on (links, btrfs). */
async function maps(pid: number, image: FileHandle, bytes: number): Promise<boolean> {
  const { dev, ino } = await image.stat();
  for (const line of (await readFile(`/proc/${pid}/maps`, "utf8")).split("\n")) {
    const [range = "", , , , inode] = line.split(" ");
    const [from = "", to = ""] = range.split("-");
    if (inode === "0" || Number.parseInt(to, 16) - Number.parseInt(from, 16) !== bytes) continue;
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
