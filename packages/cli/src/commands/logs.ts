/** `wrenn logs`: the console of a sandbox. */
import { setTimeout as delay } from "node:timers/promises";
import { deadlines, type ErrorCode, WrennError } from "@wrenn/contract";
import type { Sandbox, SandboxConsole } from "@wrenn/sdk";
import { openSandbox } from "../open-sandbox.ts";
import { interruptible } from "../session/interrupts.ts";
import { streamedOutput } from "../session/output.ts";

/** How often it is looked at for more. A console is for people, who do not notice less. */
const followMs = 500;
/** With these, what was followed is at its end. */
const ended: ReadonlySet<ErrorCode> = new Set(["sandbox_not_found", "console_gone"]);

/** With `--follow`, ends with the sandbox. */
export async function showLogs(given: string, flags: { follow?: boolean; json?: boolean }): Promise<number> {
  return interruptible(async (interrupts) => {
    const output = streamedOutput(interrupts);
    const show = async (part: SandboxConsole): Promise<void> =>
      output.stdout(Buffer.from(flags.json === true ? jsonLine(part) : part.text));
    const sandbox = await openSandbox(given, { signal: interrupts.signal });
    const first = await sandbox.console({ signal: interrupts.signal });
    await show(first);
    if (flags.follow === true) {
      await Promise.race([follow(sandbox, first.nextOffset, show, interrupts.signal), interrupts.givenUp()]);
    }
    return 0;
  });
}

async function follow(
  sandbox: Sandbox,
  from: number,
  show: (part: SandboxConsole) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  let offset = from;
  let seenAt = performance.now();
  for (;;) {
    await delay(followMs, undefined, { signal });
    try {
      const part = await sandbox.console({ offset, signal });
      if (part.text !== "") await show(part);
      offset = part.nextOffset;
      seenAt = performance.now();
    } catch (error) {
      if (!(error instanceof WrennError)) throw error;
      if (ended.has(error.code)) return;
      // The server may just be restarting; what is printed meanwhile is shown afterwards.
      if (!error.retryable || performance.now() - seenAt > deadlines.commandReconnect) throw error;
    }
  }
}

function jsonLine({ text, offset, nextOffset }: SandboxConsole): string {
  return `${JSON.stringify({ text, offset, next_offset: nextOffset })}\n`;
}
