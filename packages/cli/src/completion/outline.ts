/**
 * The command line as a completion script needs it: verbs, their options, and what their arguments can be. The scripts have all of it
 * in them. Libraries for this (such as @bomb.sh/tab) start the program at each press of Tab instead, which takes as long as any
 * other start of Node, and cannot wait for a list of sandboxes.
 */
import type { Argument, Command, Option } from "commander";
import { parsePlace } from "../copy/place.ts";
import { commandArgumentName, sandboxArgumentNames } from "../verbs/options.ts";

export interface OptionOutline {
  /** `-q` and `--quiet`; either may be missing. */
  readonly short: string | null;
  readonly long: string | null;
  readonly description: string;
  /** Whether something follows it, and what that can be where that is known. */
  readonly value: { readonly name: string; readonly choices: readonly string[] } | null;
}

export interface ArgumentOutline {
  readonly name: string;
  readonly kind: "sandbox" | "place" | "choice" | "other";
  readonly choices: readonly string[];
  readonly several: boolean;
}

export interface VerbOutline {
  readonly name: string;
  readonly description: string;
  readonly options: readonly OptionOutline[];
  readonly arguments: readonly ArgumentOutline[];
  /** Whether everything behind the first argument is for a command that it runs. */
  readonly runsCommand: boolean;
}

export function outlineOf(program: Command): VerbOutline[] {
  const help = program.createHelp();
  return help.visibleCommands(program).map((command) => ({
    name: command.name(),
    description: help.subcommandDescription(command),
    options: help.visibleOptions(command).map(outlineOption),
    arguments: command.registeredArguments.map(outlineArgument),
    runsCommand: command.registeredArguments.some((argument) => argument.name() === commandArgumentName),
  }));
}

export function flagsOf({ short, long }: OptionOutline): string[] {
  return [short, long].filter((flag) => flag !== null);
}

function outlineOption(option: Option): OptionOutline {
  const takesValue = option.required || option.optional;
  return {
    short: option.short ?? null,
    long: option.long ?? null,
    description: option.description,
    value: takesValue ? { name: option.attributeName(), choices: option.argChoices ?? [] } : null,
  };
}

function outlineArgument(argument: Argument): ArgumentOutline {
  const choices = argument.argChoices ?? [];
  return { name: argument.name(), kind: kindOf(argument, choices), choices, several: argument.variadic };
}

function kindOf(argument: Argument, choices: readonly string[]): ArgumentOutline["kind"] {
  if (choices.length > 0) return "choice";
  if (argument.parseArg === parsePlace) return "place";
  return Object.values<string>(sandboxArgumentNames).includes(argument.name()) ? "sandbox" : "other";
}
