/** The server's own metrics, one file for each concern in this folder. Labels take values of a fixed set only: no ids, no paths. */
import { collectDefaultMetrics, Gauge, Registry } from "prom-client";
import { version } from "../services/health.ts";

/** With what Node and the kernel count for the process: memory, processor, descriptors, event-loop lag, garbage collection. */
export function createRegistry(): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const build = new Gauge({
    name: "wrenn_build_info",
    help: "1, with the version of this server and of Node.",
    labelNames: ["version", "node"],
    registers: [registry],
  });
  build.set({ version, node: process.version }, 1);
  return registry;
}
