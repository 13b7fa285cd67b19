/** Waiting, in tests, for what a program says. */
import type { Readable } from "node:stream";

/** Resolves when the words have come. Goes on reading after that: a program whose output nobody reads fails. */
export async function untilSaid(output: Readable, words: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let said = "";
    output.on("data", (chunk: Buffer) => {
      said += chunk.toString();
      if (said.includes(words)) resolve();
    });
    output.once("end", () => {
      reject(new Error(`it ended without saying "${words}": ${said}`));
    });
  });
}
