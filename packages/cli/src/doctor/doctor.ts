/** Explains what this machine has and lacks for Wrenn, and what to do. Changes nothing. */
import { findFirecracker } from "@wrenn/host-agent";
import type { Layout } from "@wrenn/system";
import { type Check, type DoctorReport, examine } from "./check.ts";
import { engineExaminations } from "./engine-checks.ts";
import { installationExaminations } from "./installation-checks.ts";
import { kernelExaminations } from "./kernel-checks.ts";
import { machineExaminations } from "./machine-checks.ts";
import { needsOf } from "./needs.ts";
import { networkExaminations } from "./network-checks.ts";
import { storageExaminations } from "./storage-checks.ts";

export async function runDoctor(layout: Layout, environment: NodeJS.ProcessEnv = process.env): Promise<DoctorReport> {
  const firecracker = await findFirecracker({
    firecracker: environment["WRENN_FIRECRACKER_BIN"],
    jailer: environment["WRENN_JAILER_BIN"],
  });
  const needs = needsOf(environment, firecracker);
  const examinations = [
    ...machineExaminations,
    ...storageExaminations,
    ...engineExaminations,
    ...kernelExaminations,
    ...networkExaminations,
    ...installationExaminations,
  ];
  const checks: Check[] = await Promise.all(examinations.map((examination) => examine(examination, layout, needs)));
  return { ok: checks.every(({ status }) => status !== "failed"), checks };
}
