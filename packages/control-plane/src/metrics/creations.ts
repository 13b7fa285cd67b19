/** How long each step of creating a sandbox took on its host. */
import type { hostAgentProto } from "@wrenn/contract";
import { Histogram } from "prom-client";
import type { Registry } from "prom-client";
import { durationBuckets } from "./statuses.ts";

/** There are about ten; a host agent of another version must not make any number. */
const maxSteps = 32;

/** Returns what is to be told of each sandbox that a host has created. */
export function timeCreations(registry: Registry): (sandbox: hostAgentProto.Sandbox) => void {
  const steps = new Set<string>();
  const duration = new Histogram({
    name: "wrenn_sandbox_create_step_duration_seconds",
    help: "Time of each step of a creation, as the host agent measured it.",
    labelNames: ["step"],
    buckets: durationBuckets,
    registers: [registry],
  });
  return (sandbox) => {
    for (const { step, milliseconds } of sandbox.steps) {
      if (steps.size < maxSteps) steps.add(step);
      duration.observe({ step: steps.has(step) ? step : "other" }, milliseconds / 1_000);
    }
  };
}
