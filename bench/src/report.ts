/** What a run of the benchmarks leaves: raw samples as JSON, and a table for people. */
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { median, percentile, ratioOf } from "./statistics.ts";

const resultsDirectory = fileURLToPath(new URL("../results", import.meta.url));

/** One row: our samples, the bare engine's where there is such a thing, and what was aimed at. */
export interface Measurement {
  readonly name: string;
  readonly unit: "ms" | "µs" | "MiB" | "bytes" | "descriptors";
  readonly ours: readonly number[];
  readonly bare?: readonly number[];
  /** The percentile compared; 50 unless the figure is about the tail. */
  readonly percentile?: number;
  /** The most the ratio may be, or the most the value itself where there is nothing bare to compare with; null for a figure without an aim. */
  readonly target: number | null;
  readonly failures: number;
}

export interface Circumstances {
  readonly commit: string;
  readonly cpu: string;
  readonly cores: number;
  readonly kernel: string;
  readonly engine: string;
  readonly fileSystem: string;
  readonly at: string;
}

/** Writes `<directory>/<time>.json` and returns its path. */
export async function writeResults(
  circumstances: Circumstances,
  measurements: readonly Measurement[],
): Promise<string> {
  await mkdir(resultsDirectory, { recursive: true });
  const file = path.join(resultsDirectory, `${circumstances.at.replaceAll(":", "-")}.json`);
  await writeFile(file, `${JSON.stringify({ circumstances, measurements }, null, 2)}\n`);
  return file;
}

/** A Markdown table, one row a measurement. */
export function renderTable(measurements: readonly Measurement[]): string {
  const rows = measurements.map((measurement) => {
    const p = measurement.percentile ?? 50;
    const value = (samples: readonly number[]): string => `${round(percentile(samples, p))} ${measurement.unit}`;
    if (measurement.bare === undefined) {
      return [
        measurement.name,
        value(measurement.ours),
        "–",
        "–",
        ...aim(percentile(measurement.ours, p), measurement.target, ` ${measurement.unit}`),
        `${measurement.ours.length}`,
        `${measurement.failures}`,
      ];
    }
    const ratio = ratioOf(measurement.ours, measurement.bare, p);
    return [
      measurement.name,
      value(measurement.ours),
      value(measurement.bare),
      `${round(ratio.value)} (${round(ratio.low)}–${round(ratio.high)})`,
      ...aim(ratio.value, measurement.target),
      `${measurement.ours.length}`,
      `${measurement.failures}`,
    ];
  });
  const head = ["what", "Wrenn", "bare", "ratio (95 %)", "aim", "met", "runs", "failed"];
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function aim(value: number, target: number | null, unit = ""): [aim: string, met: string] {
  return target === null ? ["–", "–"] : [`≤ ${round(target)}${unit}`, value <= target ? "yes" : "no"];
}

/** One line while a benchmark runs. */
export function progressLine(name: string, done: number, total: number, samples: readonly number[]): string {
  const soFar = samples.length === 0 ? "" : `, median ${round(median(samples))} ms`;
  return `${name}: ${done} of ${total}${soFar}`;
}

function round(value: number): string {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
