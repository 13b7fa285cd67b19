/** Whether the host has room for one more sandbox, counting those whose creation is under way but not in memory yet. */
import { readFile, statfs } from "node:fs/promises";
import { engineMemoryOverheadMib, hostReserve, WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";

export interface HostRoom {
  readonly memoryTotalMib: number;
  /** The kernel's estimate of what can be used without swapping (MemAvailable, proc(5)). */
  readonly memoryAvailableMib: number;
  readonly diskAvailableBytes: number;
}

export async function readHostRoom(layout: Layout): Promise<HostRoom> {
  const [memInfo, disk] = await Promise.all([readFile("/proc/meminfo", "utf8"), statfs(layout.sandboxes)]);
  return {
    memoryTotalMib: memoryFigureMib(memInfo, "MemTotal"),
    memoryAvailableMib: memoryFigureMib(memInfo, "MemAvailable"),
    diskAvailableBytes: disk.bavail * disk.bsize,
  };
}

export function memoryFigureMib(memInfo: string, name: string): number {
  const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(memInfo)?.[1];
  if (kib === undefined) throw new WrennError("unsupported_machine", { message: `/proc/meminfo has no ${name}.` });
  return Math.floor(Number(kib) / 1_024);
}

export class Admission {
  readonly #layout: Layout;
  #promisedMib = 0;

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  /**
   * Promises memory to a sandbox that is about to be created, until the returned function is called.
   * @throws WrennError `host_out_of_memory` or `host_out_of_disk`
   */
  async admit(memoryMib: number): Promise<() => void> {
    const wantedMib = memoryMib + engineMemoryOverheadMib;
    // Promised before the host is looked at, so that two creates at once do not both take the same room.
    this.#promisedMib += wantedMib;
    const giveBack = once(() => {
      this.#promisedMib -= wantedMib;
    });
    try {
      const room = await readHostRoom(this.#layout);
      const freeMib = room.memoryAvailableMib - (this.#promisedMib - wantedMib);
      const neededMib = wantedMib + hostReserve.memoryMib;
      if (freeMib < neededMib) {
        throw new WrennError("host_out_of_memory", {
          message: `The host has ${Math.max(freeMib, 0)} MiB of free memory; this sandbox needs ${neededMib} MiB, what the host keeps for itself included.`,
          details: { free_mib: Math.max(freeMib, 0), needed_mib: neededMib },
        });
      }
      if (room.diskAvailableBytes < hostReserve.diskBytes) {
        throw new WrennError("host_out_of_disk", {
          message: `The host has ${room.diskAvailableBytes} bytes of free disk space and keeps ${hostReserve.diskBytes} for itself.`,
          details: { free_bytes: room.diskAvailableBytes, reserve_bytes: hostReserve.diskBytes },
        });
      }
      return giveBack;
    } catch (error) {
      giveBack();
      throw error;
    }
  }
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) action();
    done = true;
  };
}
