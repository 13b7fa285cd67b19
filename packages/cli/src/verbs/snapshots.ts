/** Verbs for named snapshots, below `wrenn snapshot`. */
import { Argument, type Command, Option } from "commander";
import { examples, type Finish, json, ListedArgument, listings, sandboxArgument, withOptions } from "./options.ts";

export interface ListSnapshotsFlags {
  quiet?: boolean;
  json?: boolean;
}

export interface CreateSnapshotFlags {
  overwrite?: boolean;
  json?: boolean;
}

export function addSnapshotVerbs(program: Command, finish: Finish): void {
  const snapshot = program
    .command("snapshot")
    .description("named snapshots of sandboxes, from which others are started")
    .helpCommand(false)
    .addHelpText(
      "after",
      examples(
        ["wrenn snapshot create 9a8057 after-setup", "the sandbox goes on"],
        ["wrenn create --template after-setup", "goes on from there, as often as you like"],
      ),
    );

  withOptions(
    snapshot.command("ls").description("list snapshots, newest first"),
    new Option("-q, --quiet", "print names only").conflicts("json"),
    json(),
  )
    .addHelpText("after", examples("wrenn snapshot ls", "wrenn snapshot ls --json"))
    .action(async (options: ListSnapshotsFlags) => {
      const { listSnapshots } = await import("../commands/snapshot.ts");
      finish(await listSnapshots(options));
    });

  withOptions(
    snapshot
      .command("create")
      .description("take a snapshot of a sandbox, memory and processes included, and print its name")
      .addArgument(sandboxArgument({ statuses: ["running", "paused"] }))
      .addArgument(new Argument("[name]", "what `wrenn create --template` names; default: one that is made up")),
    new Option("--overwrite", "replace the snapshot that has the name"),
    json(),
  )
    .addHelpText(
      "after",
      examples("wrenn snapshot create 9a8057 after-setup", "wrenn snapshot create --overwrite 9a8057 after-setup"),
    )
    .action(async (sandbox: string, name: string | undefined, options: CreateSnapshotFlags) => {
      const { createSnapshot } = await import("../commands/snapshot.ts");
      finish(await createSnapshot(sandbox, name, options));
    });

  snapshot
    .command("rm")
    .description("delete snapshots; sandboxes that were started from them keep all they have")
    .addArgument(new ListedArgument("<snapshots...>", "their names", listings.snapshots))
    .addOption(json())
    .addHelpText("after", examples("wrenn snapshot rm after-setup", "wrenn snapshot rm $(wrenn snapshot ls -q)"))
    .action(async (names: string[], options: { json?: boolean }) => {
      const { removeSnapshots } = await import("../commands/snapshot.ts");
      finish(await removeSnapshots(names, options));
    });
}
