/** What several verbs declare alike. */
import { Argument, type Command, Option } from "commander";
import { collectPair, collectVariable, parseMebibytes, parseCount, parseDuration, parseTimeout } from "../units.ts";

/** Sets the exit code of the process when its verb ends with something else than 0. */
export type Finish = (exitCode: number) => void;

/** The names of arguments that are sandboxes, by which completion knows them too. */
export const sandboxArgumentNames = { one: "sandbox", several: "sandboxes" } as const;

/** Behind the argument before the program of this name, options are that program's own. */
export const commandArgumentName = "command";

export function commandArguments(): Argument[] {
  return [
    new Argument(`<${commandArgumentName}>`, "program to run; put -- before it"),
    new Argument("[args...]", "its arguments"),
  ];
}

export function sandboxArgument(): Argument {
  return new Argument(`<${sandboxArgumentNames.one}>`, "its id, or what only its id begins or ends with");
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

export function idleTimeout(): Option {
  return new Option(
    "--timeout <duration>",
    "how long it may be idle, such as 30m or 1d; never is the default",
  ).argParser(parseTimeout);
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
