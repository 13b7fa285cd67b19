/** What hosts said of themselves when this server last reconciled with them. */
import { intervals } from "@wrenn/contract";
import type { hostAgentProto, HostId } from "@wrenn/contract";
import { Gauge } from "prom-client";
import type { Registry } from "prom-client";
import type { HostRow } from "../store/schema.ts";

interface Seen {
  readonly name: string;
  /** Null when it did not answer. */
  readonly facts: hostAgentProto.GetHostResponse | null;
  readonly at: number;
}

const bytesPerMib = 1_048_576;

/** Returns what is to be told of each look at a host. With several replicas, one at a time reconciles: what it saw long ago is left out. */
export function watchHosts(registry: Registry): (host: HostRow, facts: hostAgentProto.GetHostResponse | null) => void {
  const seen = new Map<HostId, Seen>();
  const gauge = <Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    show: (gauge: Gauge<Label | "host">, host: string, facts: hostAgentProto.GetHostResponse | null) => void,
  ): void => {
    registry.registerMetric(
      new Gauge<Label | "host">({
        name,
        help,
        labelNames: ["host", ...labelNames],
        registers: [],
        collect() {
          this.reset();
          for (const [id, { name: host, facts, at }] of seen) {
            if (performance.now() - at > intervals.hostSilence) seen.delete(id);
            else show(this, host, facts);
          }
        },
      }),
    );
  };
  gauge("wrenn_host_up", "1 when the host agent answered at the last look, else 0.", [], (up, host, facts) => {
    up.set({ host }, facts === null ? 0 : 1);
  });
  gauge("wrenn_host_memory_bytes", "Memory of the host.", ["state"], (memory, host, facts) => {
    if (facts === null) return;
    memory.set({ host, state: "total" }, facts.memoryTotalMib * bytesPerMib);
    memory.set({ host, state: "available" }, facts.memoryAvailableMib * bytesPerMib);
  });
  gauge("wrenn_host_disk_available_bytes", "Free space where the host keeps sandboxes.", [], (disk, host, facts) => {
    if (facts !== null) disk.set({ host }, Number(facts.diskAvailableBytes));
  });
  gauge("wrenn_host_slots", "Network slots of the host.", ["state"], (slots, host, facts) => {
    if (facts === null) return;
    slots.set({ host, state: "ready" }, facts.slotsReady);
    slots.set({ host, state: "in_use" }, facts.slotsInUse);
  });
  return ({ id, name }, facts) => {
    seen.set(id, { name, facts, at: performance.now() });
  };
}
