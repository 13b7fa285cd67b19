/** A report for people: a line per check, why it matters and what to do below it, and a last line that sums up. */
import { paint } from "../terminal/text.ts";
import type { CheckStatus, DoctorReport } from "./check.ts";

const symbols: Readonly<Record<CheckStatus, string>> = {
  ok: paint("✓", "green"),
  warning: paint("!", "yellow"),
  failed: paint("✗", "red"),
  unneeded: paint("–", "gray"),
};
const words: Readonly<Record<CheckStatus, string>> = {
  ok: "ok     ",
  warning: "warning",
  failed: "FAILED ",
  unneeded: "–      ",
};
const visibleWidth = { terminal: 1, plain: 7 } as const;

/** @param options.terminal symbols and colours instead of words */
export function renderDoctorReport(report: DoctorReport, options: { terminal: boolean }): string {
  const marks = options.terminal ? symbols : words;
  const nameWidth = Math.max(...report.checks.map(({ name }) => name.length));
  const indent = " ".repeat((options.terminal ? visibleWidth.terminal : visibleWidth.plain) + nameWidth + 4);
  const lines = report.checks.flatMap(({ name, status, finding, why, remedy }) => [
    `${marks[status]}  ${name.padEnd(nameWidth)}  ${finding}`,
    ...(why === undefined ? [] : [`${indent}${why}`]),
    ...(remedy === undefined ? [] : [`${indent}→ ${remedy}`]),
  ]);
  return [...lines, "", summary(report), ""].join("\n");
}

function summary({ checks }: DoctorReport): string {
  const failures = checks.filter(({ status }) => status === "failed").length;
  const warnings = checks.filter(({ status }) => status === "warning").length;
  if (failures > 0) return `Sandboxes cannot run here yet: ${count(failures, "check")} failed.`;
  return warnings > 0 ? `Sandboxes can run here, with ${count(warnings, "warning")}.` : "Sandboxes can run here.";
}

function count(amount: number, noun: string): string {
  return `${amount} ${noun}${amount === 1 ? "" : "s"}`;
}
