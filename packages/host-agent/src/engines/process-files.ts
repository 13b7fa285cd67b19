/** What every engine's process is given of its host, and what it leaves to explain why it did not start. */
import { open, stat } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { isMissingFile } from "@wrenn/system";
import { readEnd } from "./console-log.ts";

/** Enough of an engine's standard error to explain why it would not start. */
const wordsBytes = 1_000;

/** What an engine gets to see of the host agent's environment: where programs are, and nothing else. */
export function engineEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin" };
}

/** An empty file that only root can read; the engine could not replace it, its directory being sticky. */
export async function createPrivate(file: string): Promise<void> {
  try {
    const handle = await open(file, "a", 0o600);
    await handle.close();
  } catch (error) {
    if (isMissingFile(error))
      throw new WrennError("engine_failed", { message: `${file} cannot be made.`, cause: error });
    throw error;
  }
}

/**
 * The last that an engine has said.
 * @param from how large its log was before it was started: it may tell of an earlier one
 */
export async function lastWords(log: string, from = 0): Promise<string> {
  const { size } = await stat(log);
  // A log that has grown past its bound was emptied meanwhile.
  const newBytes = Math.max(0, size - from);
  return (await readEnd(log, Math.min(wordsBytes, newBytes))).toString("utf8").trim();
}
