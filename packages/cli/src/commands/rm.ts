/** `wrenn rm`: destroys sandboxes. */
import { once } from "node:events";
import { createInterface } from "node:readline/promises";
import { WrennError } from "@wrenn/contract";
import { Sandbox } from "@wrenn/sdk";
import { layoutFromEnvironment } from "@wrenn/system";
import { connectToServer } from "../local-server.ts";
import { listIds } from "../open-sandbox.ts";
import { say } from "../terminal/messages.ts";
import { tryEachSandbox } from "../try-each.ts";
import type { RemoveFlags } from "../verbs/sandboxes.ts";

/** Tries all of them; exits with 1 when any could not be destroyed. */
export async function removeSandboxes(given: readonly string[], flags: RemoveFlags): Promise<number> {
  const meant = flags.all === true ? await confirmAll(await listAll(), flags) : given;
  if (meant === null) return 1;
  const options = { json: flags.json === true, doing: "destroying", done: "destroyed" };
  return tryEachSandbox(meant, options, (id, api) => Sandbox.destroy(id, api));
}

async function listAll(): Promise<string[]> {
  const { api } = await connectToServer(layoutFromEnvironment());
  return listIds(api);
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
