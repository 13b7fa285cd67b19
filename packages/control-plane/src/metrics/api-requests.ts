/** Requests of the API: how many, how they ended, and how long they took. */
import { Counter, Gauge, Histogram } from "prom-client";
import type { Registry } from "prom-client";
import type { RequestObserver } from "../http/observe-requests.ts";
import { durationBuckets, statusClass } from "./statuses.ts";

/** Others are as many as a client can invent. */
const countedMethods: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

export function countApiRequests(registry: Registry): RequestObserver {
  const registers = [registry];
  const total = new Counter({
    name: "wrenn_http_requests_total",
    help: "Requests of the API that are over, by method, route and class of status.",
    labelNames: ["method", "route", "status"],
    registers,
  });
  const duration = new Histogram({
    name: "wrenn_http_request_duration_seconds",
    help: "From a request's head to the end of its answer.",
    labelNames: ["method", "route"],
    buckets: durationBuckets,
    registers,
  });
  const inFlight = new Gauge({
    name: "wrenn_http_requests_in_flight",
    help: "Requests of the API under way, streams included.",
    registers,
  });
  return {
    began: () => {
      inFlight.inc();
    },
    ended: ({ method: given, route: pattern, status, milliseconds }) => {
      const method = countedMethods.has(given) ? given : "other";
      const route = pattern ?? "none";
      inFlight.dec();
      total.inc({ method, route, status: statusClass(status) });
      duration.observe({ method, route }, milliseconds / 1_000);
    },
  };
}
