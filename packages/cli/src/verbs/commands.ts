/** Verbs for commands and processes in sandboxes. */
import type { SignalName } from "@wrenn/contract";
import { Argument, type Command, Option } from "commander";
import { parseCount, parseSignal, signalNumbers } from "../units.ts";
import {
  commandArguments,
  commandTimeout,
  environment,
  examples,
  type Finish,
  json,
  sandboxArgument,
  sandboxSizes,
  template,
  user,
  withArguments,
  withOptions,
  workingDirectory,
} from "./options.ts";

export interface RunFlags {
  env?: Record<string, string>;
  template?: string;
  vcpus?: number;
  memory?: number;
  disk?: number;
  timeout?: number;
  user?: string;
  cwd?: string;
  tty: boolean;
  keep: boolean;
  quiet: boolean;
  json?: boolean;
}

export interface ExecFlags {
  env?: Record<string, string>;
  timeout?: number;
  user?: string;
  cwd?: string;
  tty?: boolean;
  detach?: boolean;
  json?: boolean;
}

export interface ShellFlags {
  env?: Record<string, string>;
  user?: string;
  cwd?: string;
  tag?: string;
}

export interface KillFlags {
  signal: SignalName;
  json?: boolean;
}

const exitCodes = `
Exits with the command's exit code: 128 + its number when a signal ended it, 124 when --timeout passed, 126 when the
program cannot be executed, 127 when there is none; 125 when Wrenn itself failed.`;

export function addCommandVerbs(program: Command, finish: Finish): void {
  program.commandsGroup("Commands in sandboxes:");

  withOptions(
    withArguments(
      program.command("run").description("run a command in a new sandbox, which is destroyed when the command ends"),
      ...commandArguments(),
    ).passThroughOptions(),
    environment(),
    template("what the sandbox starts from: a template, or a snapshot; default: minimal"),
    ...sandboxSizes(),
    commandTimeout(),
    user("runs the command"),
    workingDirectory(),
    new Option("-t, --tty", "give the command a terminal").default(false),
    new Option("--keep", "do not destroy the sandbox").default(false),
    new Option("-q, --quiet", "say nothing of Wrenn's own, except errors and that output may be missing").default(
      false,
    ),
    json(),
  )
    .addHelpText("after", exitCodes)
    .addHelpText(
      "after",
      examples("wrenn run -- uname -a", "tar c src | wrenn run --memory 1G -- sh -c 'tar x && make -C src'"),
    )
    .action(async (command: string, args: string[], options: RunFlags) => {
      const { run } = await import("../commands/run.ts");
      finish(await run(command, args, options));
    });

  withOptions(
    withArguments(
      program.command("exec").description("run a command in a sandbox, with our input, output and signals"),
      sandboxArgument(),
      ...commandArguments(),
    ).passThroughOptions(),
    environment(),
    commandTimeout(),
    user("runs the command"),
    workingDirectory(),
    new Option("-t, --tty", "give the command a terminal"),
    new Option("-d, --detach", "leave it running in the background, and print its pid").conflicts("tty"),
    json(),
  )
    .addHelpText("after", exitCodes)
    .addHelpText(
      "after",
      examples(
        "wrenn exec 9a8057 -- ls -l /srv",
        "wrenn exec 9a8057 -- sha256sum < disk.img",
        "wrenn exec -u root -w /srv -t 9a8057 -- bash",
        ["wrenn exec -d 9a8057 -- python3 -m http.server", "its pid is for `wrenn kill`"],
      ),
    )
    .action(async (sandbox: string, first: string, rest: string[], options: ExecFlags, verb: Command) => {
      const command = commandBehind(verb, [first, ...rest]);
      const { exec } = await import("../commands/exec.ts");
      finish(await exec(sandbox, command, options));
    });

  withOptions(
    program.command("shell").description("open a shell in a sandbox on this terminal").addArgument(sandboxArgument()),
    environment(),
    user("the shell belongs to"),
    workingDirectory(),
    new Option("--tag <name>", "open a shell that outlives the connection, or come back to the one of that name"),
  )
    .addHelpText(
      "after",
      `
Exits with the shell's exit code. With --tag, pressing Ctrl-] twice leaves the shell running; without it, every key is
the shell's.`,
    )
    .addHelpText(
      "after",
      examples("wrenn shell 9a8057", ["wrenn shell --tag work 9a8057", "again later, or from elsewhere"]),
    )
    .action(async (sandbox: string, options: ShellFlags) => {
      const { shell } = await import("../commands/shell.ts");
      finish(await shell(sandbox, options));
    });

  program
    .command("ps")
    .description("list the processes of a sandbox that were started through Wrenn")
    .addArgument(sandboxArgument())
    .addOption(json())
    .addHelpText("after", examples("wrenn ps 9a8057", ["wrenn exec 9a8057 -- ps aux", "all there are"]))
    .action(async (sandbox: string, options: { json?: boolean }) => {
      const { listProcesses } = await import("../commands/ps.ts");
      finish(await listProcesses(sandbox, options));
    });

  withOptions(
    program
      .command("kill")
      .description("send a signal to a process of a sandbox")
      .addArgument(sandboxArgument())
      .addArgument(new Argument("<pid>", "as `wrenn ps` shows it").argParser(parseCount)),
    new Option("-s, --signal <signal>", "by name or number")
      .choices(Object.keys(signalNumbers))
      .argParser(parseSignal)
      .default("SIGTERM"),
    json(),
  )
    .addHelpText("after", examples("wrenn kill 9a8057 312", "wrenn kill -s KILL 9a8057 312"))
    .action(async (sandbox: string, pid: number, options: KillFlags) => {
      const { killProcess } = await import("../commands/kill.ts");
      finish(await killProcess(sandbox, pid, options));
    });
}

/** Behind the sandbox everything is left as it is, also the -- and what somebody thought was an option of ours. */
function commandBehind(verb: Command, words: readonly string[]): readonly string[] {
  const command = words[0] === "--" ? words.slice(1) : words;
  if (command.length === 0) verb.error("error: missing required argument 'command'");
  if (words[0] !== "--" && words[0]?.startsWith("-") === true) {
    verb.error(`error: ${words[0]} has to stand before the sandbox; or put -- before the command`);
  }
  return command;
}
