/** Where a new sandbox goes. Whether it fits is decided with the host's row locked; this only orders the hosts to try. */
import { engineMemoryOverheadMib, hostReserve, overcommit } from "@wrenn/contract";
import type { HostLoad } from "../store/reservations.ts";
import type { HostRow } from "../store/schema.ts";

export interface PlacementAsk {
  readonly vcpus: number;
  readonly memoryMib: number;
}

export interface Scheduler {
  /** The hosts to try, best first. A host in it may still turn out to be away or full. */
  rank(loads: readonly HostLoad[], ask: PlacementAsk): HostRow[];
}

/**
 * Least loaded first, by the scarcer of memory and processors as they would be after the placement. Hosts that do not
 * answer come last instead of not at all: they may have come back since they were last asked.
 */
export const leastLoaded: Scheduler = {
  rank(loads, ask) {
    return loads
      .map((load) => ({ host: load.host, away: isAway(load.host), room: roomAfter(load, ask) }))
      .filter(({ away, room }) => away || room >= 0)
      .sort((a, b) => Number(a.away) - Number(b.away) || b.room - a.room)
      .map(({ host }) => host);
  },
};

function isAway(host: HostRow): boolean {
  return host.status === "unreachable" || host.contact_lost_at !== null;
}

/** The scarcer resource's free fraction after the placement; negative when it does not fit. */
function roomAfter({ host, usedMemoryMib, usedVcpus }: HostLoad, ask: PlacementAsk): number {
  const memory = host.memory_mib - hostReserve.memoryMib;
  const vcpus = host.cpu_count * overcommit.vcpus;
  if (memory <= 0 || vcpus <= 0) return -1;
  return Math.min(
    (memory - usedMemoryMib - ask.memoryMib - engineMemoryOverheadMib) / memory,
    (vcpus - usedVcpus - ask.vcpus) / vcpus,
  );
}
