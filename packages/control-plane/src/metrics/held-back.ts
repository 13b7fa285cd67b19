/** What waits for an operator's decision. */
import { Gauge } from "prom-client";
import type { Registry } from "prom-client";
import { heldBackKinds } from "../services/held-back.ts";
import type { HeldBack } from "../services/held-back.ts";

export function watchHeldBack(registry: Registry, heldBack: HeldBack): void {
  registry.registerMetric(
    new Gauge({
      name: "wrenn_reconciliation_held_back",
      help: "Sandboxes and snapshots that database and hosts disagree about and that wait for an operator's decision.",
      labelNames: ["kind"],
      registers: [],
      collect() {
        for (const kind of heldBackKinds) this.set({ kind }, heldBack.count(kind));
      },
    }),
  );
}
