/** `wrenn fork`: copies of a sandbox. */
import { openSandbox } from "../open-sandbox.ts";
import { sandboxToJson } from "../sandbox-json.ts";
import { interruptible } from "../session/interrupts.ts";
import { waitForServer } from "../session/waiting.ts";
import { printJson } from "../terminal/messages.ts";
import type { ForkFlags } from "../verbs/lifecycle.ts";

/** Prints the ids of the copies. */
export async function forkSandbox(given: string, flags: ForkFlags): Promise<number> {
  const copies = await interruptible(async (interrupts) => {
    const { signal } = interrupts;
    const { count, metadata, timeout: timeoutMs } = flags;
    const sandbox = await openSandbox(given, { signal });
    return waitForServer(`copying ${sandbox.id}`, { interrupts, quiet: flags.json === true }, () =>
      sandbox.fork({ count, metadata, timeoutMs, signal }),
    );
  });
  if (flags.json === true) printJson({ sandboxes: copies.map(({ info }) => sandboxToJson(info)) });
  else process.stdout.write(copies.map(({ id }) => `${id}\n`).join(""));
  return 0;
}
