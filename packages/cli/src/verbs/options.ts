/** What several verbs declare alike. */
import type { SandboxStatus } from "@wrenn/contract";
import { Argument, type Command, Option } from "commander";
import { collectPair, collectVariable, parseMebibytes, parseCount, parseDuration, parseTimeout } from "../units.ts";

/** Sets the exit code of the process when its verb ends with something else than 0. */
export type Finish = (exitCode: number) => void;

/** Verbs of ours that print what there is, one in a line: completion offers that. */
export const listings = { snapshots: "snapshot ls -q" } as const;

function sandboxListing(statuses?: readonly SandboxStatus[]): string {
  return statuses === undefined ? "ls -q" : `ls -q --status ${statuses.join(",")}`;
}

/** An argument that is one of what a verb of ours lists. */
export class ListedArgument extends Argument {
  readonly listing: string;

  constructor(name: string, description: string, listing: string) {
    super(name, description);
    this.listing = listing;
  }
}

/** An option whose value is one of what a verb of ours lists, or something else. */
export class ListedOption extends Option {
  readonly listing: string;

  constructor(flags: string, description: string, listing: string) {
    super(flags, description);
    this.listing = listing;
  }
}

/** Behind the argument before the program of this name, options are that program's own. */
export const commandArgumentName = "command";

export function commandArguments(): Argument[] {
  return [
    new Argument(`<${commandArgumentName}>`, "program to run; put -- before it"),
    new Argument("[args...]", "its arguments"),
  ];
}

export interface SandboxArgumentOptions {
  several?: boolean;
  /** May be left out altogether. */
  optional?: boolean;
  /** Those that completion offers: the verb is of no use for others. */
  statuses?: readonly SandboxStatus[];
}

export function sandboxArgument({ several, optional, statuses }: SandboxArgumentOptions = {}): Argument {
  const name = several === true ? "sandboxes..." : "sandbox";
  const description =
    several === true
      ? "their ids, or what only these begin or end with"
      : "its id, or what only its id begins or ends with";
  return new ListedArgument(optional === true ? `[${name}]` : `<${name}>`, description, sandboxListing(statuses));
}

export function template(description: string): Option {
  return new ListedOption("--template <name>", description, listings.snapshots);
}

export function json(): Option {
  return new Option("--json", "print the result, or the error, as JSON");
}

export function environment(): Option {
  return new Option("-e, --env <NAME=value>", "set a variable; NAME alone takes it from the environment").argParser(
    collectVariable,
  );
}

export function user(does: string): Option {
  return new Option("-u, --user <name>", `who ${does} in the sandbox`);
}

export function workingDirectory(): Option {
  return new Option("-w, --cwd <directory>", "where the command starts in the sandbox");
}

export function commandTimeout(): Option {
  return new Option("--timeout <duration>", "stop the command after 30s, 5m, …, and exit with 124").argParser(
    parseDuration,
  );
}

export function sandboxSizes(): Option[] {
  return [
    new Option("--vcpus <count>", "processors of the sandbox").argParser(parseCount),
    new Option("--memory <size>", "memory of the sandbox, such as 512M or 1G").argParser(parseMebibytes),
    new Option("--disk <size>", "disk of the sandbox, such as 5G").argParser(parseMebibytes),
  ];
}

export function timeout(description: string): Option {
  return new Option("--timeout <duration>", description).argParser(parseTimeout);
}

export function metadata(description: string): Option {
  return new Option("--metadata <key=value>", description).argParser(collectPair);
}

/** Lines below a verb's help, each a command as one would type it, with what it does behind it where that is not plain. */
export function examples(...lines: readonly (string | readonly [command: string, does: string])[]): string {
  const commands = lines.map((line) => (typeof line === "string" ? ([line, ""] as const) : line));
  const width = Math.max(...commands.filter(([, does]) => does !== "").map(([command]) => command.length), 0);
  const shown = commands.map(([command, does]) =>
    does === "" ? `  $ ${command}` : `  $ ${command.padEnd(width)}   # ${does}`,
  );
  return `\nExamples:\n${shown.join("\n")}`;
}

/** Adds every one of the options. */
export function withOptions(command: Command, ...options: readonly Option[]): Command {
  for (const option of options) command.addOption(option);
  return command;
}

export function withArguments(command: Command, ...list: readonly Argument[]): Command {
  for (const argument of list) command.addArgument(argument);
  return command;
}
