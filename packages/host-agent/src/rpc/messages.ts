/** Sandboxes and snapshots as the host agent's RPC tells of them. */
import { create as createMessage } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { type DiskFormat, hostAgentProto } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { overlayUsedBytes } from "../disks/overlay-files.ts";
import type { MachineIdentity } from "../engines/engine.ts";
import { type Journal, recoverySourcesOf } from "../sandboxes/journal.ts";
import type { ListedState, Listing } from "../sandboxes/listing.ts";
import { overlayOf } from "../sandboxes/own-disk.ts";
import type { SnapshotListing } from "../sandboxes/snapshots.ts";

const { SandboxSchema, SandboxState, SnapshotSchema } = hostAgentProto;

const states: Readonly<Record<ListedState, hostAgentProto.SandboxState>> = {
  creating: SandboxState.CREATING,
  running: SandboxState.RUNNING,
  pausing: SandboxState.PAUSING,
  paused: SandboxState.PAUSED,
  resuming: SandboxState.RESUMING,
  snapshotting: SandboxState.SNAPSHOTTING,
  dead: SandboxState.DEAD,
  destroying: SandboxState.DESTROYING,
};

export async function describeSandbox(layout: Layout, { journal, state }: Listing): Promise<hostAgentProto.Sandbox> {
  const files = layout.sandbox(journal.sandboxId);
  return createMessage(SandboxSchema, {
    sandboxId: journal.sandboxId,
    state: states[state],
    vcpus: journal.vcpus,
    memoryMib: journal.memoryMib,
    diskMib: journal.diskMib,
    engine: journal.engine,
    createdAt: timestampFromDate(new Date(journal.createdAt)),
    diskUsedBytes: "disk" in journal ? BigInt(await overlayUsedBytes(overlayOf(files, journal.disk))) : 0n,
    steps: journal.steps,
    generationId: generationOf(journal) ?? "",
    ...(journal.state === "running"
      ? {
          memoryBackend: journal.memory.backend,
          engineReason: journal.engineReason ?? "",
          ...describeMachine(journal.machine, journal.disk.format),
        }
      : {}),
    ...("pausedAt" in journal ? { pausedAt: timestampFromDate(new Date(journal.pausedAt)) } : {}),
    ...(journal.state === "dead"
      ? {
          recoverable: recoverySourcesOf(journal),
          death: {
            code: journal.death.code,
            message: journal.death.message,
            at: timestampFromDate(new Date(journal.death.at)),
            consoleTail: journal.death.consoleTail,
          },
        }
      : {}),
  });
}

export function describeSnapshot({ kept, manifest }: SnapshotListing): hostAgentProto.Snapshot {
  return createMessage(SnapshotSchema, {
    templateTeamId: kept.teamId,
    templateId: kept.templateId,
    generationId: manifest.id,
    vcpus: manifest.vcpus,
    memoryMib: manifest.memoryMib,
    diskMib: manifest.diskMib,
    ...describeMachine(manifest.machine, manifest.disk.format),
    sizeBytes: BigInt(kept.sizeBytes),
    createdAt: timestampFromDate(new Date(manifest.createdAt)),
  });
}

/** What a frozen state of it can be started with again. */
function describeMachine(
  { engine, version, cpu }: MachineIdentity,
  diskFormat: DiskFormat,
): Pick<hostAgentProto.Snapshot, "engine" | "engineVersion" | "cpu" | "diskFormat"> {
  return { engine, engineVersion: version, cpu, diskFormat };
}

/** The frozen state that it is in, or was last in. */
function generationOf(journal: Journal): string | null {
  if (journal.state === "running") return journal.memory.parent;
  return "generation" in journal ? journal.generation : null;
}
