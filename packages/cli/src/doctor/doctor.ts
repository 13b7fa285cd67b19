/** Explains what this machine has and lacks for Wrenn, and what to do. Changes nothing. */
import type { Layout } from "@wrenn/system";
import { type Check, type DoctorReport, examine } from "./check.ts";
import { engineExaminations } from "./engine-checks.ts";
import { installationExaminations } from "./installation-checks.ts";
import { machineExaminations } from "./machine-checks.ts";
import { networkExaminations } from "./network-checks.ts";

export async function runDoctor(layout: Layout): Promise<DoctorReport> {
  const examinations = [
    ...machineExaminations,
    ...engineExaminations,
    ...networkExaminations,
    ...installationExaminations,
  ];
  const checks: Check[] = await Promise.all(examinations.map((examination) => examine(examination, layout)));
  return { ok: checks.every(({ status }) => status !== "failed"), checks };
}
