/** `wrenn watch`: a line for each change in a directory of a sandbox. */
import type { FileChange } from "@wrenn/sdk";
import { openSandbox } from "../open-sandbox.ts";
import { interruptible } from "../session/interrupts.ts";
import { streamedOutput } from "../session/output.ts";
import { say } from "../terminal/messages.ts";
import { printable } from "../terminal/text.ts";
import type { WatchFlags } from "../verbs/files.ts";

/** Ends when it is interrupted, or when the directory is gone. */
export async function watch(given: string, path: string, flags: WatchFlags): Promise<number> {
  return interruptible(async (interrupts) => {
    const output = streamedOutput(interrupts);
    const show = flags.json === true ? jsonLine : plainLine;
    const { signal } = interrupts;
    const sandbox = await openSandbox(given, { signal });
    const options = { recursive: flags.recursive, user: flags.user, signal };
    const following = await sandbox.files.watch(path, (change) => output.stdout(Buffer.from(show(change))), options);
    say(`wrenn: watching ${path}`);
    await Promise.race([following.closed, interrupts.givenUp()]);
    say(`wrenn: ${path} was removed`);
    return 0;
  });
}

const typeWidth = "create".length;

function plainLine({ type, name }: FileChange): string {
  return `${type.padEnd(typeWidth)}  ${printable(name)}\n`;
}

function jsonLine({ type, name }: FileChange): string {
  return `${JSON.stringify({ type, name })}\n`;
}
