/** A line of a part's log, as `wrenn up` shows it. */

const levels: Readonly<Record<number, string>> = {
  10: "trace",
  20: "debug",
  30: "info",
  40: "warn",
  50: "error",
  60: "fatal",
};
/** Fields every line of our programs carries, which only machines read. */
const hidden = new Set(["level", "time", "pid", "hostname", "msg", "name", "v"]);
const nameWidth = "control-plane".length;

/** Our programs log JSON, which is made readable; PostgreSQL's lines are shown as they are. */
export function formatLogLine(part: string, line: string): string {
  const prefix = part.padEnd(nameWidth);
  const fields = parseObject(line);
  if (fields === null) return `${prefix}  ${line}`;
  const level = typeof fields["level"] === "number" ? (levels[fields["level"]] ?? "") : asText(fields["level"]);
  const rest = Object.entries(fields)
    .filter(([key]) => !hidden.has(key))
    .map(([key, value]) => `${key}=${asText(value)}`);
  return [prefix, ` ${level.padEnd(5)}`, asText(fields["msg"]), ...rest].join(" ").trimEnd();
}

function parseObject(line: string): Record<string, unknown> | null {
  if (!line.startsWith("{")) return null;
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null;
  }
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}
