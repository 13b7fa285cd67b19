/** Hosts as they report themselves. */
import { intervals, WrennError } from "@wrenn/contract";
import type { hostAgentProto, HostId } from "@wrenn/contract";
import type { HostClient, HostClients } from "../hosts/host-client.ts";
import type { Scheduler } from "../hosts/scheduler.ts";
import type { Store } from "../store/database.ts";
import { listHosts, recordContact } from "../store/hosts.ts";
import type { HostRow } from "../store/schema.ts";
import { reserveSandbox, usageOfHosts } from "../store/reservations.ts";
import type { NewSandbox } from "../store/reservations.ts";
import type { SandboxRow } from "../store/schema.ts";

/** Asks the agent what its machine has and writes it down. */
export async function refreshHost(
  store: Store,
  client: HostClient,
  host: HostRow,
): Promise<hostAgentProto.GetHostResponse> {
  const facts = await client.getHost();
  await recordContact(store, host.id, {
    cpuCount: facts.cpuCount,
    memoryMib: facts.memoryTotalMib,
    agentVersion: facts.agentVersion,
    engine: facts.engine,
  });
  client.noteRecorded();
  return facts;
}

export interface Placement {
  readonly row: SandboxRow;
  readonly client: HostClient;
}

/**
 * Reserves room on the first host, in the scheduler's order, that answers and has it; or on one host, where no other will do.
 * @throws WrennError `no_capacity`, or `host_unavailable` when no host answers.
 */
export async function placeSandbox(
  { store, clients, scheduler }: { store: Store; clients: HostClients; scheduler: Scheduler },
  sandbox: NewSandbox,
  onlyHost: HostId | null,
): Promise<Placement> {
  const hosts = (await listHosts(store)).filter((host) => onlyHost === null || host.id === onlyHost);
  const usage = await usageOfHosts(
    store,
    hosts.map((host) => host.id),
  );
  const loads = hosts.map((host) => {
    const used = usage.find(({ hostId }) => hostId === host.id);
    return { host, usedMemoryMib: used?.memoryMib ?? 0, usedVcpus: used?.vcpus ?? 0 };
  });
  const silent: unknown[] = [];
  let answered = 0;
  for (const host of scheduler.rank(loads, sandbox)) {
    const client = clients.get(host.address);
    try {
      // An agent that is away is found out before there is a row to clean up. Asking for each of many creates would cost them more
      // than all their own statements.
      if (!client.wasRecordedWithin(intervals.hostFacts)) await refreshHost(store, client, host);
    } catch (error) {
      if (!(error instanceof WrennError && error.code === "host_unavailable")) throw error;
      silent.push(error);
      continue;
    }
    answered += 1;
    const row = await reserveSandbox(store, host.id, sandbox);
    if (row !== null) return { row, client };
  }
  if (answered === 0 && silent.length > 0) throw new WrennError("host_unavailable", { cause: silent[0] });
  throw noRoom(sandbox.vcpus, sandbox.memoryMib);
}

export function noRoom(vcpus: number, memoryMib: number): WrennError {
  return new WrennError("no_capacity", {
    message: `No host has room for ${vcpus} vCPUs and ${memoryMib} MiB of memory.`,
    details: { vcpus, memory_mib: memoryMib },
  });
}
