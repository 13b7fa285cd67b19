/** `wrenn doctor`: what this machine has and lacks, and what to do about it. */
import { layoutFromEnvironment } from "@wrenn/system";
import { renderDoctorReport, runDoctor } from "../doctor/index.ts";
import { printJson } from "../terminal/messages.ts";

/** Exits with 1 when something that Wrenn needs is missing. */
export async function doctor(options: { json: boolean }): Promise<number> {
  const report = await runDoctor(layoutFromEnvironment());
  if (options.json) printJson(report);
  else process.stdout.write(`${renderDoctorReport(report, { terminal: process.stdout.isTTY })}\n`);
  return report.ok ? 0 : 1;
}
