/** `wrenn rm`: destroys sandboxes. */
import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import { asWrennError, WrennError } from "@wrenn/contract";
import { type ConnectionOptions, Sandbox } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { listIds } from "../open-sandbox.ts";
import { resolveSandboxId } from "../sandbox-ids.ts";
import { printJson, reportError, say } from "../terminal/messages.ts";
import type { RemoveFlags } from "../verbs/sandboxes.ts";

/** Tries all of them; exits with 1 when any could not be destroyed. */
export async function removeSandboxes(given: readonly string[], flags: RemoveFlags): Promise<number> {
  const { api } = await connectToServer(layoutFromEnvironment());
  const json = flags.json === true;
  let listed: Promise<string[]> | undefined;
  const list = (): Promise<string[]> => (listed ??= listIds(api));
  const meant = flags.all === true ? await confirmAll(await list(), flags) : given;
  if (meant === null) return 1;
  const destroyed: string[] = [];
  const failed: Record<string, unknown>[] = [];
  for (const part of meant) {
    try {
      const id = await destroyOne(part, api, list);
      destroyed.push(id);
      if (!json) process.stdout.write(`${id}\n`);
    } catch (error) {
      failed.push({ id: part, ...asWrennError(error).toBody() });
      if (!json) reportError(error, { json });
    }
  }
  if (json) printJson({ destroyed, failed });
  return failed.length === 0 ? 0 : 1;
}

async function destroyOne(part: string, api: ConnectionOptions, list: () => Promise<string[]>): Promise<string> {
  const id = await resolveSandboxId(part, list);
  await Sandbox.destroy(id, api);
  return id;
}

/** The ids, once whoever sits at the terminal has agreed; null when they have not. */
async function confirmAll(ids: readonly string[], flags: RemoveFlags): Promise<readonly string[] | null> {
  if (flags.yes === true || ids.length === 0) return ids;
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new WrennError("invalid_request", {
      message: `rm --all would destroy ${countOf(ids)}, and there is no terminal to ask on.`,
      suggestion: "Say --yes, or name the sandboxes.",
    });
  }
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    // The end of input closes it, and Ctrl-C too: both are a no.
    const closed = once(terminal, "close").then(() => "");
    const asked = terminal.question(`Destroy ${countOf(ids)} with all they hold? [y/N] `).catch(() => closed);
    if (/^y(es)?$/i.test((await Promise.race([asked, closed])).trim())) return ids;
    say("nothing was destroyed");
    return null;
  } finally {
    terminal.close();
  }
}

function countOf(ids: readonly string[]): string {
  return ids.length === 1 ? "1 sandbox" : `${ids.length} sandboxes`;
}
