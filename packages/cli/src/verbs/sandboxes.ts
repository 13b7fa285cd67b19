/** Verbs for sandboxes as a whole. */
import type { TimeoutAction } from "@wrenn/contract";
import { type Command, Option } from "commander";
import {
  environment,
  examples,
  type Finish,
  json,
  metadata,
  sandboxArgument,
  sandboxSizes,
  template,
  timeout,
  withOptions,
} from "./options.ts";

const timeoutActions = ["pause", "destroy"] as const satisfies readonly TimeoutAction[];

export interface CreateFlags {
  template?: string;
  vcpus?: number;
  memory?: number;
  disk?: number;
  timeout?: number | null;
  onTimeout?: TimeoutAction;
  env?: Record<string, string>;
  metadata?: Record<string, string>;
  quiet?: boolean;
  json?: boolean;
}

export interface ListFlags {
  status?: string;
  template?: string;
  metadata?: Record<string, string>;
  all?: boolean;
  quiet?: boolean;
  json?: boolean;
}

export interface RemoveFlags {
  all?: boolean;
  yes?: boolean;
  json?: boolean;
}

export function addSandboxVerbs(program: Command, finish: Finish): void {
  program.commandsGroup("Sandboxes:");

  withOptions(
    program
      .command("create")
      .description("create a sandbox and print its id; starts the server of this machine if need be"),
    template("what it starts from: a template, or a snapshot, which has its own sizes; default: minimal"),
    ...sandboxSizes(),
    timeout("how long it may be idle, such as 30m or 1d; default: never too long"),
    new Option("--on-timeout <action>", "what becomes of it then; default: pause").choices(timeoutActions),
    environment(),
    metadata("something to find it by; may be given several times"),
    new Option("-q, --quiet", "show no progress"),
    json(),
  )
    .addHelpText(
      "after",
      examples(
        "wrenn create",
        "wrenn create --memory 1G --timeout 30m --on-timeout destroy --metadata job=42",
        ["wrenn create --template after-setup", "goes on from a snapshot"],
        ["id=$(wrenn create)", "to use it in a script"],
      ),
    )
    .action(async (options: CreateFlags) => {
      const { createSandbox } = await import("../commands/create.ts");
      finish(await createSandbox(options));
    });

  withOptions(
    program.command("ls").description("list sandboxes, newest first"),
    new Option("--status <status>", "only those in it; several are separated by commas"),
    template("only those made from it"),
    metadata("only those that have it; may be given several times"),
    new Option("-a, --all", "also those that have stopped").conflicts("status"),
    new Option("-q, --quiet", "print ids only").conflicts("json"),
    json(),
  )
    .addHelpText(
      "after",
      examples("wrenn ls", "wrenn ls --status error,missing", [
        "wrenn rm $(wrenn ls -q --metadata job=42)",
        "destroy those of a job",
      ]),
    )
    .action(async (options: ListFlags) => {
      const { listSandboxes } = await import("../commands/ls.ts");
      finish(await listSandboxes(options));
    });

  program
    .command("get")
    .description("show everything about a sandbox")
    .addArgument(sandboxArgument())
    .addOption(json())
    .addHelpText("after", examples("wrenn get 9a8057", "wrenn get --json 9a8057"))
    .action(async (sandbox: string, options: { json?: boolean }) => {
      const { getSandbox } = await import("../commands/get.ts");
      finish(await getSandbox(sandbox, options));
    });

  withOptions(
    program
      .command("rm")
      .description("destroy sandboxes with all they hold")
      .addArgument(sandboxArgument({ several: true, optional: true })),
    new Option("-a, --all", "all sandboxes of the team; asks first on a terminal"),
    new Option("-y, --yes", "do not ask"),
    json(),
  )
    .addHelpText("after", examples("wrenn rm 9a8057", "wrenn rm --all --yes"))
    .action(async (sandboxes: string[], options: RemoveFlags, verb: Command) => {
      if (options.all === true && sandboxes.length > 0) verb.error("error: name sandboxes, or give --all, not both");
      if (options.all !== true && sandboxes.length === 0) verb.error("error: missing required argument 'sandboxes'");
      const { removeSandboxes } = await import("../commands/rm.ts");
      finish(await removeSandboxes(sandboxes, options));
    });

  withOptions(
    program
      .command("logs")
      .description("print what a sandbox's kernel and its first process have printed on its console")
      .addArgument(sandboxArgument()),
    new Option("-f, --follow", "go on with what comes"),
    json(),
  )
    .addHelpText("after", examples("wrenn logs 9a8057", "wrenn logs -f 9a8057"))
    .action(async (sandbox: string, options: { follow?: boolean; json?: boolean }) => {
      const { showLogs } = await import("../commands/logs.ts");
      finish(await showLogs(sandbox, options));
    });
}
