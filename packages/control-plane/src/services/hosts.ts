/** Hosts as they report themselves. */
import { intervals, WrennError } from "@wrenn/contract";
import type { hostAgentProto } from "@wrenn/contract";
import type { HostClient, HostClients } from "../hosts/host-client.ts";
import type { Scheduler } from "../hosts/scheduler.ts";
import type { Store } from "../store/database.ts";
import { recordContact } from "../store/hosts.ts";
import type { HostFacts } from "../store/hosts.ts";
import type { HostRow } from "../store/schema.ts";
import { reserveSandbox } from "../store/reservations.ts";
import type { HostLoad, NewSandbox } from "../store/reservations.ts";
import type { SandboxRow } from "../store/schema.ts";

/** Asks the agent what its machine has and writes it down. */
export async function refreshHost(
  store: Store,
  client: HostClient,
  host: HostRow,
): Promise<hostAgentProto.GetHostResponse> {
  const facts = await client.recentFacts(0);
  await recordContact(store, host.id, recorded(facts));
  return facts;
}

/**
 * Makes sure that the agent answers, or did a moment ago, and that what it says of its machine is what is written down.
 * @throws WrennError `host_unavailable`
 */
export async function ensureAnswers(store: Store, client: HostClient, host: HostRow): Promise<void> {
  const facts = recorded(await client.recentFacts(intervals.hostFacts));
  // The reconciler writes down when it was last seen: once more, for each create, would cost as much as all else that is written then.
  if (!isAsRecorded(facts, host)) await recordContact(store, host.id, facts);
}

function recorded(facts: hostAgentProto.GetHostResponse): HostFacts {
  const { cpuCount, memoryTotalMib: memoryMib, agentVersion, engine } = facts;
  return { cpuCount, memoryMib, agentVersion, engine };
}

function isAsRecorded({ cpuCount, memoryMib, agentVersion, engine }: HostFacts, host: HostRow): boolean {
  return (
    host.status === "online" &&
    host.contact_lost_at === null &&
    host.cpu_count === cpuCount &&
    host.memory_mib === memoryMib &&
    host.agent_version === agentVersion &&
    host.engine === engine
  );
}

export interface Placement {
  readonly row: SandboxRow;
  readonly client: HostClient;
}

/**
 * Reserves room on the first of these hosts, in the scheduler's order, that answers and has it.
 * @throws WrennError `no_capacity`, or `host_unavailable` when no host answers.
 */
export async function placeSandbox(
  { store, clients, scheduler }: { store: Store; clients: HostClients; scheduler: Scheduler },
  sandbox: NewSandbox,
  loads: readonly HostLoad[],
): Promise<Placement> {
  const silent: unknown[] = [];
  let answered = 0;
  for (const host of scheduler.rank(loads, sandbox)) {
    const client = clients.get(host.address);
    try {
      // An agent that is away is found out before there is a row to clean up.
      await ensureAnswers(store, client, host);
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
