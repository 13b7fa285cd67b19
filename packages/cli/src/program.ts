/** The verbs of `wrenn`, declared in verbs/. What a verb does is loaded only when it is used. */
import { Command } from "commander";
import { readVersion } from "./server/installation.ts";
import { addCommandVerbs } from "./verbs/commands.ts";
import { addCompletionVerb } from "./verbs/completion.ts";
import { addFileVerbs } from "./verbs/files.ts";
import type { Finish } from "./verbs/options.ts";
import { addLifecycleVerbs } from "./verbs/lifecycle.ts";
import { addSandboxVerbs } from "./verbs/sandboxes.ts";
import { addServerVerbs } from "./verbs/server.ts";
import { addSnapshotVerbs } from "./verbs/snapshots.ts";

/** Verbs that exit with the exit code of the command they run, and have but a few left for themselves. */
export const verbsOfCommands: ReadonlySet<string | undefined> = new Set(["run", "exec", "shell"]);

export function makeProgram(finish: Finish): Command {
  const program = new Command("wrenn")
    .description("Run untrusted code in microVMs.")
    .version(readVersion(), "-V, --version")
    .enablePositionalOptions()
    .showHelpAfterError("(wrenn --help shows what there is)")
    .exitOverride()
    .configureHelp({ sortSubcommands: false });
  addCommandVerbs(program, finish);
  addSandboxVerbs(program, finish);
  addLifecycleVerbs(program, finish);
  addSnapshotVerbs(program, finish);
  addFileVerbs(program, finish);
  addServerVerbs(program, finish);
  addCompletionVerb(program, finish);
  return program;
}
