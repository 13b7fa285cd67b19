/** Whether the host has room for one more sandbox, counting all the memory that others were promised, touched or not. */
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

/** Memory that is promised to one sandbox. */
export interface MemoryPromise {
  /** The sandbox runs: what it has touched of its memory shows in the host's figures from now on. */
  settle(): void;
  /** The sandbox holds no memory any more. */
  release(): void;
}

export class Admission {
  readonly #layout: Layout;
  readonly #overcommit: number;
  /** Of all sandboxes. A guest that has touched little of its memory yet may take the rest at any time. */
  #promisedMib = 0;
  /** Of those whose creation is under way. */
  #unsettledMib = 0;

  /** @param overcommit how many times its memory the host promises. More than once, and guests that touch what they were promised may be killed. */
  constructor(layout: Layout, overcommit = 1) {
    this.#layout = layout;
    this.#overcommit = overcommit;
  }

  /**
   * Promises memory to a sandbox that is about to be created.
   * @throws WrennError `host_out_of_memory` or `host_out_of_disk`
   */
  async admit(memoryMib: number): Promise<MemoryPromise> {
    // Promised before the host is looked at, so that two creates at once do not both take the same room.
    const promise = this.#promise(memoryMib);
    const wantedMib = memoryMib + engineMemoryOverheadMib;
    try {
      const room = await readHostRoom(this.#layout);
      const freeMib =
        wantedMib +
        Math.min(
          room.memoryAvailableMib - this.#unsettledMib,
          room.memoryTotalMib * this.#overcommit - this.#promisedMib,
        );
      const neededMib = wantedMib + hostReserve.memoryMib;
      if (freeMib < neededMib) {
        throw new WrennError("host_out_of_memory", {
          message: `The host has ${Math.max(freeMib, 0)} MiB of memory that no sandbox was promised; this one needs ${neededMib} MiB, what the host keeps for itself included.`,
          details: { free_mib: Math.max(freeMib, 0), needed_mib: neededMib },
        });
      }
      if (room.diskAvailableBytes < hostReserve.diskBytes) {
        throw new WrennError("host_out_of_disk", {
          message: `The host has ${room.diskAvailableBytes} bytes of free disk space and keeps ${hostReserve.diskBytes} for itself.`,
          details: { free_bytes: room.diskAvailableBytes, reserve_bytes: hostReserve.diskBytes },
        });
      }
      return promise;
    } catch (error) {
      promise.release();
      throw error;
    }
  }

  /** Takes over the promise that another host agent made to a sandbox that runs. */
  adopt(memoryMib: number): MemoryPromise {
    const promise = this.#promise(memoryMib);
    promise.settle();
    return promise;
  }

  #promise(memoryMib: number): MemoryPromise {
    const mib = memoryMib + engineMemoryOverheadMib;
    this.#promisedMib += mib;
    this.#unsettledMib += mib;
    const settle = once(() => {
      this.#unsettledMib -= mib;
    });
    const release = once(() => {
      settle();
      this.#promisedMib -= mib;
    });
    return { settle, release };
  }
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) action();
    done = true;
  };
}
