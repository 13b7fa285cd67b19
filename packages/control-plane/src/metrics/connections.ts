/** Connections that there was no room for. */
import { Counter } from "prom-client";
import type { Registry } from "prom-client";

export function countRefusedConnections(registry: Registry): () => void {
  const refused = new Counter({
    name: "wrenn_connections_refused_total",
    help: "Connections closed at once, because there were as many as the server takes.",
    registers: [registry],
  });
  return () => {
    refused.inc();
  };
}
