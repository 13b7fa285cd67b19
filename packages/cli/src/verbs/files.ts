/** Verbs for files in sandboxes. */
import { Argument, type Command, Option } from "commander";
import { parsePlace, type Place } from "../copy/place.ts";
import { examples, type Finish, json, sandboxArgument, user, withOptions } from "./options.ts";

export interface CopyFlags {
  user?: string;
  quiet?: boolean;
  json?: boolean;
}

export interface WatchFlags {
  recursive?: boolean;
  user?: string;
  json?: boolean;
}

export function addFileVerbs(program: Command, finish: Finish): void {
  program.commandsGroup("Files in sandboxes:");

  withOptions(
    program
      .command("cp")
      .description("copy files and directories into a sandbox, or out of one")
      .addArgument(new Argument("<source>", "a path, sandbox:path, or - for standard input").argParser(parsePlace))
      .addArgument(
        new Argument("<destination>", "a path, sandbox:path, or - for standard output").argParser(parsePlace),
      ),
    user("reads or writes"),
    new Option("-q, --quiet", "show no progress"),
    json(),
  )
    .addHelpText(
      "after",
      `
A directory is copied with all it holds; permissions, times and links are kept, owners are not. What is copied into a directory that
exists lands in it under its own name; dir/. means what is in dir. A path in a sandbox that does not begin with a slash
starts at the home directory. A file is in its place whole, or not at all.`,
    )
    .addHelpText(
      "after",
      examples(
        "wrenn cp model.bin 9a8057:/srv/",
        ["wrenn cp 9a8057:results .", "a directory, to ./results"],
        "wrenn cp site/. 9a8057:/var/www",
        "pg_dump shop | wrenn cp - 9a8057:shop.sql",
      ),
    )
    .action(async (source: Place, destination: Place, options: CopyFlags, verb: Command) => {
      if (options.json === true && destination.kind === "stream") {
        verb.error("error: standard output cannot be both the file and the JSON result");
      }
      const { copy } = await import("../commands/cp.ts");
      finish(await copy(source, destination, options));
    });

  withOptions(
    program
      .command("watch")
      .description("print a line for each change in a directory of a sandbox, until interrupted")
      .addArgument(sandboxArgument())
      .argument("<path>", "the directory"),
    new Option("-r, --recursive", "also in the directories below it"),
    user("watches"),
    new Option("--json", "print each change as a line of JSON"),
  )
    .addHelpText("after", examples("wrenn watch -r 9a8057 /srv/app"))
    .action(async (sandbox: string, path: string, options: WatchFlags) => {
      const { watch } = await import("../commands/watch.ts");
      finish(await watch(sandbox, path, options));
    });
}
