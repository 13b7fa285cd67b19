/** The host's TSC rate, which every emulated boot is told. Read here independently of the host agent: the yardstick shares no code with it. */
import { readFile } from "node:fs/promises";

/** kHz; Linux derives bogomips from the TSC rate at two loops a tick. */
export async function hostTscKhz(): Promise<number> {
  const bogomips = /^bogomips\s*:\s*([\d.]+)$/m.exec(await readFile("/proc/cpuinfo", "utf8"))?.[1];
  if (bogomips === undefined) throw new Error("/proc/cpuinfo has no bogomips");
  return Math.round(Number(bogomips) * 500);
}
