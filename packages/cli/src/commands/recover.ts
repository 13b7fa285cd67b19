/** `wrenn recover`: starts a sandbox again whose virtual machine has died. */
import { openSandbox } from "../open-sandbox.ts";
import { sandboxToJson } from "../sandbox-json.ts";
import { interruptible } from "../session/interrupts.ts";
import { waitForServer } from "../session/waiting.ts";
import { printJson } from "../terminal/messages.ts";
import type { RecoverFlags } from "../verbs/lifecycle.ts";

export async function recoverSandbox(given: string, flags: RecoverFlags): Promise<number> {
  const info = await interruptible(async (interrupts) => {
    const { signal } = interrupts;
    const sandbox = await openSandbox(given, { signal });
    return waitForServer(`recovering ${sandbox.id}`, { interrupts, quiet: flags.json === true }, () =>
      sandbox.recover({ from: flags.from, signal }),
    );
  });
  if (flags.json === true) printJson(sandboxToJson(info));
  else process.stdout.write(`${info.id}\n`);
  return 0;
}
