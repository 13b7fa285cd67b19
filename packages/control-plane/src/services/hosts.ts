/** Hosts as they report themselves. */
import { isDeepStrictEqual } from "node:util";
import { intervals, WrennError } from "@wrenn/contract";
import type { hostAgentProto, HostId } from "@wrenn/contract";
import type { HostClient, HostClients } from "../hosts/host-client.ts";
import { differences, incompatible, machineOf } from "../hosts/machine.ts";
import type { Machine } from "../hosts/machine.ts";
import type { Scheduler } from "../hosts/scheduler.ts";
import type { Store } from "../store/database.ts";
import { recordContact } from "../store/hosts.ts";
import type { HostFacts } from "../store/hosts.ts";
import type { HostRow } from "../store/schema.ts";
import { reserveSandbox } from "../store/reservations.ts";
import type { HostLoad, NewSandbox } from "../store/reservations.ts";
import type { SandboxRow } from "../store/schema.ts";

/**
 * A host as it is now: its agent answers, or did a moment ago, and what it says of its machine is what is written down.
 * @throws WrennError `host_unavailable`
 */
export async function presentHost(store: Store, client: HostClient, host: HostRow): Promise<HostRow> {
  const facts = factsFrom(await client.recentFacts(intervals.hostFacts));
  // The reconciler writes down when it was last seen: once more, for each create, would cost as much as all else that is written then.
  if (!isAsRecorded(facts, host)) await recordContact(store, host.id, facts);
  return { ...host, ...facts };
}

/** Asks the agent what its machine has and writes it down. */
export async function refreshHost(
  store: Store,
  client: HostClient,
  host: HostRow,
): Promise<hostAgentProto.GetHostResponse> {
  const facts = await client.recentFacts(0);
  await recordContact(store, host.id, factsFrom(facts));
  return facts;
}

function factsFrom(told: hostAgentProto.GetHostResponse): HostFacts {
  return {
    cpu_count: told.cpuCount,
    memory_mib: told.memoryTotalMib,
    agent_version: told.agentVersion,
    ...machineOf(told),
    engine_reason: told.engineReason || null,
    disk_reason: told.diskReason || null,
    disk_formats: told.diskFormats,
    memory_backends: told.memoryBackends,
  };
}

function isAsRecorded(facts: HostFacts, host: HostRow): boolean {
  return (
    host.status === "online" && host.contact_lost_at === null && isDeepStrictEqual({ ...host, ...facts }, { ...host })
  );
}

export interface Placement {
  readonly row: SandboxRow;
  readonly client: HostClient;
}

/** What a snapshot asks of the host that its sandboxes are to run on. */
export interface FrozenOrigin {
  /** It is where it was taken, and nowhere else. */
  readonly hostId: HostId;
  readonly machine: Machine;
}

/**
 * Reserves room on the first of these hosts, in the scheduler's order, that answers and has it; of a snapshot's sandbox, on a host that has
 * the snapshot and can run it.
 * @throws WrennError `no_capacity`, `host_unavailable` when no host answers, `snapshot_incompatible` when those that do cannot run it
 */
export async function placeSandbox(
  { store, clients, scheduler }: { store: Store; clients: HostClients; scheduler: Scheduler },
  sandbox: NewSandbox,
  loads: readonly HostLoad[],
  origin: FrozenOrigin | null,
): Promise<Placement> {
  const candidates = loads.filter(({ host }) => origin === null || host.id === origin.hostId);
  const silent: unknown[] = [];
  const unfit: HostRow[] = [];
  let fit = 0;
  for (const ranked of scheduler.rank(candidates, sandbox)) {
    const client = clients.get(ranked.address);
    let host: HostRow;
    try {
      // An agent that is away is found out before there is a row to clean up.
      host = await presentHost(store, client, ranked);
    } catch (error) {
      if (!(error instanceof WrennError && error.code === "host_unavailable")) throw error;
      silent.push(error);
      continue;
    }
    if (origin !== null && differences(origin.machine, host).length > 0) {
      unfit.push(host);
      continue;
    }
    fit += 1;
    const row = await reserveSandbox(store, host.id, sandbox);
    if (row !== null) return { row, client };
  }
  if (fit === 0 && origin !== null && unfit.length > 0) throw incompatible("snapshot", origin.machine, unfit);
  if (fit === 0 && silent.length > 0) throw new WrennError("host_unavailable", { cause: silent[0] });
  throw noRoom(sandbox.vcpus, sandbox.memoryMib);
}

export function noRoom(vcpus: number, memoryMib: number): WrennError {
  return new WrennError("no_capacity", {
    message: `No host has room for ${vcpus} vCPUs and ${memoryMib} MiB of memory.`,
    details: { vcpus, memory_mib: memoryMib },
  });
}
