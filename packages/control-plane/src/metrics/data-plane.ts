/** Requests into sandboxes, and the connections that carry them. */
import { Counter, Gauge, Histogram } from "prom-client";
import type { Registry } from "prom-client";
import type { TunnelPools } from "../hosts/tunnel-pools.ts";
import type { DataPlaneObserver } from "../proxy/data-plane.ts";
import { durationBuckets, statusClass } from "./statuses.ts";

export function countDataPlane(registry: Registry, pools: TunnelPools): DataPlaneObserver {
  const registers = [registry];
  const total = new Counter({
    name: "wrenn_data_plane_requests_total",
    help: "Requests into sandboxes that have been answered, by class of status; upgraded ones as soon as they are.",
    labelNames: ["status"],
    registers,
  });
  const refused = new Counter({
    name: "wrenn_data_plane_refused_total",
    help: "Requests into sandboxes that Wrenn itself refused or could not deliver, by code of the error.",
    labelNames: ["code"],
    registers,
  });
  const duration = new Histogram({
    name: "wrenn_data_plane_request_duration_seconds",
    help: "From the head of a request into a sandbox to the end of its answer; of upgraded ones to their upgrade.",
    buckets: durationBuckets,
    registers,
  });
  const inFlight = new Gauge({
    name: "wrenn_data_plane_requests_in_flight",
    help: "Requests into sandboxes under way, without upgraded ones.",
    registers,
  });
  const upgraded = new Gauge({
    name: "wrenn_data_plane_upgraded_connections",
    help: "Open connections into sandboxes that go on in another protocol, such as WebSocket.",
    registers,
  });
  registry.registerMetric(
    new Gauge({
      name: "wrenn_tunnels_open",
      help: "Open tunnels through host agents into sandboxes, idle ones included.",
      registers: [],
      collect() {
        this.set(pools.open);
      },
    }),
  );
  return {
    began: () => {
      inFlight.inc();
    },
    ended: (status, milliseconds) => {
      inFlight.dec();
      total.inc({ status: statusClass(status) });
      duration.observe(milliseconds / 1_000);
    },
    refused: (code) => {
      refused.inc({ code });
    },
    upgraded: () => {
      upgraded.inc();
    },
    upgradeClosed: () => {
      upgraded.dec();
    },
  };
}
