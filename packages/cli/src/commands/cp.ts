/** `wrenn cp`: files and directories between here and a sandbox. */
import { copyBetween } from "../copy/copy.ts";
import { Meter } from "../copy/meter.ts";
import { describePlace, type Place } from "../copy/place.ts";
import { interruptible } from "../session/interrupts.ts";
import { streamedOutput } from "../session/output.ts";
import { printJson } from "../terminal/messages.ts";
import { Progress } from "../terminal/progress.ts";
import { formatBytes, formatSeconds } from "../units.ts";
import type { CopyFlags } from "../verbs/files.ts";

export async function copy(source: Place, destination: Place, flags: CopyFlags): Promise<number> {
  const meter = new Meter();
  const progress = new Progress({ quiet: flags.quiet === true || flags.json === true });
  const begun = performance.now();
  const written = await interruptible(async (interrupts) => {
    const output = streamedOutput(interrupts);
    const options = {
      user: flags.user,
      signal: interrupts.signal,
      meter,
      stdin: (): AsyncIterable<Uint8Array> => process.stdin,
      stdout: (bytes: Uint8Array) => output.stdout(bytes),
    };
    return progress.during(
      `copying ${describePlace(source)}`,
      () => copyBetween(source, destination, options),
      (elapsedMs) => describeTransfer(meter, elapsedMs),
    );
  });
  if (flags.json === true) {
    printJson({
      source: describePlace(source),
      destination: describePlace(written),
      bytes: meter.bytes,
      duration_ms: Math.round(performance.now() - begun),
    });
  }
  return 0;
}

function describeTransfer({ bytes, totalBytes }: Meter, elapsedMs: number): string {
  // An archive has a little more than the file in it.
  const amount =
    totalBytes === null
      ? formatBytes(bytes)
      : `${formatBytes(Math.min(bytes, totalBytes))} of ${formatBytes(totalBytes)}`;
  return `${amount}, ${formatBytes((bytes / elapsedMs) * 1_000)}/s, ${formatSeconds(elapsedMs)}`;
}
