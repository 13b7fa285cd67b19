/** What a control plane wants to know of this machine. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { asWrennError, type DiskFormat, type MemoryBackend, sandboxLimits } from "@wrenn/contract";
import { type Layout } from "@wrenn/system";
import { findBootFiles } from "./disks/boot-files.ts";
import type { HostDisks } from "./disks/host-disks.ts";
import type { Engines } from "./engines/engines.ts";
import type { SlotPool } from "./network/slot-pool.ts";
import { readHostRoom } from "./sandboxes/admission.ts";
import type { SandboxContext } from "./sandboxes/context.ts";
import { usableBackends } from "./sandboxes/open-memory.ts";

export interface HostFacts {
  readonly agentVersion: string;
  readonly cpuCount: number;
  readonly memoryTotalMib: number;
  readonly memoryAvailableMib: number;
  readonly diskAvailableBytes: bigint;
  /** Empty while no engine can be used; the reason says why. */
  readonly engine: string;
  readonly engineVersion: string;
  readonly engineReason: string;
  /** The processor that guests find; empty while no engine can be used. */
  readonly cpu: string;
  readonly diskFormat: string;
  readonly diskReason: string;
  /** Those that the engine can use; empty while there is none. */
  readonly diskFormats: DiskFormat[];
  readonly memoryBackends: MemoryBackend[];
  /** Empty while no kernel is installed. */
  readonly kernelVersion: string;
  readonly slotsReady: number;
  readonly slotsInUse: number;
}

const agentVersion = readVersion();

export interface HostParts {
  readonly layout: Layout;
  readonly engines: Engines;
  readonly disks: HostDisks;
  readonly slots: SlotPool;
  readonly memory: Pick<SandboxContext, "memoryChoice" | "servesPages">;
}

export async function readHostFacts({ layout, engines, disks, slots, memory }: HostParts): Promise<HostFacts> {
  const [room, engine, kernelVersion] = await Promise.all([
    readHostRoom(layout),
    describeEngine(engines, disks),
    readKernelVersion(layout),
  ]);
  const { ready, inUse } = slots.stats();
  return {
    agentVersion,
    cpuCount: availableParallelism(),
    memoryTotalMib: room.memoryTotalMib,
    memoryAvailableMib: room.memoryAvailableMib,
    diskAvailableBytes: BigInt(room.diskAvailableBytes),
    ...engine,
    diskFormat: disks.current.format,
    diskReason: disks.reason,
    memoryBackends: usableBackends(memory),
    kernelVersion,
    slotsReady: ready,
    slotsInUse: inUse,
  };
}

async function describeEngine(
  engines: Engines,
  disks: HostDisks,
): Promise<Pick<HostFacts, "engine" | "engineVersion" | "engineReason" | "cpu" | "diskFormats">> {
  try {
    const engine = await engines.current();
    // Guests of all sizes find the same processor.
    const { cpu } = await engine.identify({ vcpus: 1, memoryMib: sandboxLimits.memoryMib.default });
    return {
      engine: engine.kind,
      engineVersion: engine.version,
      engineReason: engine.reason,
      cpu,
      diskFormats: disks.usableBy(engine),
    };
  } catch (error) {
    const { message, suggestion } = asWrennError(error);
    return { engine: "", engineVersion: "", engineReason: `${message} ${suggestion}`, cpu: "", diskFormats: [] };
  }
}

async function readKernelVersion(layout: Layout): Promise<string> {
  try {
    return (await findBootFiles(layout)).kernelVersion;
  } catch {
    return "";
  }
}

function readVersion(): string {
  const manifest = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  return manifest.version;
}
