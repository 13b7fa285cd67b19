/** WebSockets of the API: how many are open, and how they ended. */
import { Counter, Gauge } from "prom-client";
import type { Registry } from "prom-client";
import type { StreamObserver } from "../http/streams/streams.ts";

export function countStreams(registry: Registry): StreamObserver {
  const registers = [registry];
  const open = new Gauge({
    name: "wrenn_streams_open",
    help: "Open WebSockets of the API, by route.",
    labelNames: ["route"],
    registers,
  });
  const total = new Counter({
    name: "wrenn_streams_total",
    help: "WebSockets of the API that are over, by route and outcome: exit, client_left, or the code of an error.",
    labelNames: ["route", "outcome"],
    registers,
  });
  return {
    began: (route) => {
      open.inc({ route });
    },
    ended: (route, outcome) => {
      open.dec({ route });
      total.inc({ route, outcome });
    },
  };
}
