/** How long each step of what hosts do with sandboxes took. */
import type { hostAgentProto } from "@wrenn/contract";
import { Histogram } from "prom-client";
import type { Registry } from "prom-client";
import { timedOperations } from "../hosts/host-client.ts";
import type { TimedOperation } from "../hosts/host-client.ts";
import { durationBuckets } from "./statuses.ts";

/** Each has about ten; a host agent of another version must not make any number. */
const maxSteps = 32;

const what: Readonly<Record<TimedOperation, string>> = {
  create: "a creation",
  pause: "a pause",
  resume: "a resume",
  fork: "the start of a fork",
  recover: "a recovery",
};

/** Returns what is to be told of each sandbox that a host has brought into another state. */
export function timeSteps(registry: Registry): (operation: TimedOperation, sandbox: hostAgentProto.Sandbox) => void {
  const observers = new Map(timedOperations.map((operation) => [operation, timeOperation(registry, operation)]));
  return (operation, sandbox) => {
    for (const { step, milliseconds } of sandbox.steps) observers.get(operation)?.(step, milliseconds);
  };
}

function timeOperation(registry: Registry, operation: TimedOperation): (step: string, milliseconds: number) => void {
  const steps = new Set<string>();
  const duration = new Histogram({
    name: `wrenn_sandbox_${operation}_step_duration_seconds`,
    help: `Time of each step of ${what[operation]}, as the host agent measured it.`,
    labelNames: ["step"],
    buckets: durationBuckets,
    registers: [registry],
  });
  return (step, milliseconds) => {
    if (steps.size < maxSteps) steps.add(step);
    duration.observe({ step: steps.has(step) ? step : "other" }, milliseconds / 1_000);
  };
}
