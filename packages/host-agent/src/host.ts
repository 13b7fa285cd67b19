/** What a control plane wants to know of this machine. */
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { asWrennError } from "@wrenn/contract";
import { type Layout } from "@wrenn/system";
import { findBootFiles } from "./disks/boot-files.ts";
import type { Engines } from "./engines/engines.ts";
import type { SlotPool } from "./network/slot-pool.ts";
import { readHostRoom } from "./sandboxes/admission.ts";

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
  /** Empty while no kernel is installed. */
  readonly kernelVersion: string;
  readonly slotsReady: number;
  readonly slotsInUse: number;
}

const agentVersion = readVersion();

export async function readHostFacts(layout: Layout, engines: Engines, slots: SlotPool): Promise<HostFacts> {
  const [room, engine, kernelVersion] = await Promise.all([
    readHostRoom(layout),
    describeEngine(engines),
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
    kernelVersion,
    slotsReady: ready,
    slotsInUse: inUse,
  };
}

async function describeEngine(engines: Engines): Promise<Pick<HostFacts, "engine" | "engineVersion" | "engineReason">> {
  try {
    const { kind, version, reason } = await engines.current();
    return { engine: kind, engineVersion: version, engineReason: reason };
  } catch (error) {
    const { message, suggestion } = asWrennError(error);
    return { engine: "", engineVersion: "", engineReason: `${message} ${suggestion}` };
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
