/** Quantities as people type them on a command line, and as they are shown to people. */
import { constants } from "node:os";
import type { SignalName } from "@wrenn/contract";
import { InvalidArgumentError } from "commander";

const millisecondsPer = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A timer of Node fires at once when it is set to 2^31 ms (24.8 days) or more; the rest is left for what is added to it. */
const longestDuration = { days: 24, milliseconds: 24 * 86_400_000 } as const;

/** `30s`, `5m`, `1.5h`, `1d`, `500ms`; a bare number is seconds. Milliseconds. */
function parseMilliseconds(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text);
  const [, amount, unit = "s"] = match ?? [];
  const milliseconds = Number(amount) * millisecondsPer[unit as keyof typeof millisecondsPer];
  if (match === null || milliseconds <= 0) {
    throw new InvalidArgumentError("Give a duration such as 30s, 5m or 1.5h.");
  }
  return Math.ceil(milliseconds);
}

/** A duration that a timer here has to wait for. Milliseconds. */
export function parseDuration(text: string): number {
  const milliseconds = parseMilliseconds(text);
  if (milliseconds > longestDuration.milliseconds) {
    throw new InvalidArgumentError(
      `Give a duration of at most ${longestDuration.days * 24}h (${longestDuration.days} days).`,
    );
  }
  return milliseconds;
}

/** A duration that the server measures; `never` is none. Milliseconds. */
export function parseTimeout(text: string): number | null {
  return text === "never" ? null : parseMilliseconds(text);
}

/** `512`, `512M`, `1G`, `1.5GiB`; a bare number is MiB. Whole MiB. */
export function parseMebibytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(?:(M|G)(?:i?B)?)?$/i.exec(text);
  const [, amount, unit = "M"] = match ?? [];
  const mebibytes = Number(amount) * (unit.toUpperCase() === "G" ? 1_024 : 1);
  if (match === null || !Number.isInteger(mebibytes)) {
    throw new InvalidArgumentError("Give a size such as 512, 512M or 1G.");
  }
  return mebibytes;
}

export function parseCount(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError("Give a whole number.");
  return Number(text);
}

/**
 * One `-e`: `NAME=value`, or `NAME` alone to take its value from the environment; a variable that is not set there is
 * left out. Commander calls this for each occurrence with what the earlier ones made.
 */
export function collectVariable(text: string, earlier: Record<string, string> = {}): Record<string, string> {
  const separator = text.indexOf("=");
  const name = separator < 0 ? text : text.slice(0, separator);
  if (name === "") throw new InvalidArgumentError("Give NAME=value, or NAME.");
  const value = separator < 0 ? process.env[name] : text.slice(separator + 1);
  return value === undefined ? earlier : { ...earlier, [name]: value };
}

/** One `--metadata`: `key=value`, whatever else is in the value. */
export function collectPair(text: string, earlier: Record<string, string> = {}): Record<string, string> {
  const separator = text.indexOf("=");
  if (separator < 1) throw new InvalidArgumentError("Give key=value.");
  return { ...earlier, [text.slice(0, separator)]: text.slice(separator + 1) };
}

/** Signals that can be sent into a sandbox, by their numbers. */
export const signalNumbers = {
  SIGHUP: constants.signals.SIGHUP,
  SIGINT: constants.signals.SIGINT,
  SIGQUIT: constants.signals.SIGQUIT,
  SIGKILL: constants.signals.SIGKILL,
  SIGUSR1: constants.signals.SIGUSR1,
  SIGUSR2: constants.signals.SIGUSR2,
  SIGTERM: constants.signals.SIGTERM,
  SIGCONT: constants.signals.SIGCONT,
  SIGSTOP: constants.signals.SIGSTOP,
} as const satisfies Record<SignalName, number>;

/** `SIGTERM`, `TERM`, `term` or `15`. */
export function parseSignal(text: string): SignalName {
  const wanted = text.toUpperCase();
  for (const [name, number] of Object.entries(signalNumbers)) {
    if (wanted === name || `SIG${wanted}` === name || wanted === String(number)) return name as SignalName;
  }
  throw new InvalidArgumentError(`Give one of ${Object.keys(signalNumbers).join(", ")}.`);
}

const byteUnits = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const power = Math.min(byteUnits.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(1, bytes)) / 10)));
  return `${(bytes / 1_024 ** power).toFixed(power === 0 ? 0 : 1)} ${byteUnits[power] ?? ""}`;
}

export function formatSeconds(milliseconds: number): string {
  return `${(milliseconds / 1_000).toFixed(1)} s`;
}

/** A span of time in its two largest units: `3 h 12 min`. */
export function formatSpan(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1_000);
  const units = [
    ["d", Math.floor(seconds / 86_400)],
    ["h", Math.floor(seconds / 3_600) % 24],
    ["min", Math.floor(seconds / 60) % 60],
    ["s", seconds % 60],
  ] as const;
  const first = units.findIndex(([, amount]) => amount > 0);
  if (first < 0) return "0 s";
  return units
    .slice(first, first + 2)
    .filter(([, amount]) => amount > 0)
    .map(([unit, amount]) => `${amount} ${unit}`)
    .join(" ");
}
