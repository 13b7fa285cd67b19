/** Text for people's eyes: coloured where the stream is a terminal that wants it, and harmless whatever it came from. */
import { styleText } from "node:util";
import type { SandboxStatus } from "@wrenn/contract";

export type Colour = "green" | "yellow" | "red" | "gray" | "blue" | "bold";

/** Coloured for a terminal; as it is for everything else, and where NO_COLOR is set (no-color.org). */
export function paint(text: string, colour: Colour, stream: NodeJS.WriteStream = process.stdout): string {
  return styleText(colour, text, { stream });
}

export const statusColours: Readonly<Record<SandboxStatus, Colour>> = {
  pending: "yellow",
  starting: "yellow",
  running: "green",
  snapshotting: "yellow",
  pausing: "yellow",
  paused: "blue",
  resuming: "yellow",
  stopping: "yellow",
  stopped: "gray",
  missing: "red",
  error: "red",
};

/**
 * Text out of a sandbox in one line that cannot play tricks on a terminal: control characters, and what turns the direction of
 * writing, are shown as escapes.
 */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\u2028\u2029\u202A-\u202E\u2066-\u2069]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\u${code.toString(16).padStart(4, "0")}`;
  });
}
