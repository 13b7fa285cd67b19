/** Where the benchmarks find what they measure, and leave what they found. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { Layout } from "@wrenn/system";

export const resultsDirectory = fileURLToPath(new URL("../results", import.meta.url));

export function guestAgentBinary(layout: Layout): string {
  return path.join(layout.bin, "wrenn-guest");
}
