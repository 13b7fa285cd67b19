/**
 * The command line as a completion script needs it: verbs, their options, and what their arguments can be. The scripts have all of it
 * in them. Libraries for this (such as @bomb.sh/tab) start the program at each press of Tab instead, which takes as long as any
 * other start of Node, and cannot wait for a list of sandboxes.
 */
import type { Argument, Command, Option } from "commander";
import { parsePlace } from "../copy/place.ts";
import { commandArgumentName, ListedArgument, ListedOption } from "../verbs/options.ts";

export interface OptionOutline {
  /** `-q` and `--quiet`; either may be missing. */
  readonly short: string | null;
  readonly long: string | null;
  readonly description: string;
  /** Whether something follows it, and what that can be where that is known: one of a few words, or of what a verb of ours lists. */
  readonly value: {
    readonly name: string;
    readonly choices: readonly string[];
    readonly listing: string | null;
  } | null;
}

export interface ArgumentOutline {
  readonly name: string;
  readonly kind: "listed" | "place" | "choice" | "other";
  readonly choices: readonly string[];
  /** Of what is `listed`: the verb of ours that prints what there is. */
  readonly listing: string | null;
  readonly several: boolean;
}

export interface VerbOutline {
  /** With a blank in it where it is below another: `snapshot ls`. */
  readonly name: string;
  readonly description: string;
  readonly options: readonly OptionOutline[];
  readonly arguments: readonly ArgumentOutline[];
  /** Whether everything behind the first argument is for a command that it runs. */
  readonly runsCommand: boolean;
}

/** Every verb, each followed by those that are below it. */
export function outlineOf(program: Command, above = ""): VerbOutline[] {
  const help = program.createHelp();
  return help.visibleCommands(program).flatMap((command) => {
    const name = `${above}${command.name()}`;
    const below = outlineOf(command, `${name} `);
    const verb: VerbOutline = {
      name,
      description: help.subcommandDescription(command),
      options: help.visibleOptions(command).map(outlineOption),
      arguments: below.length > 0 ? [choiceOf(below)] : command.registeredArguments.map(outlineArgument),
      runsCommand: command.registeredArguments.some((argument) => argument.name() === commandArgumentName),
    };
    return [verb, ...below];
  });
}

/** Those that are below another verb, which is completed as if they were an argument of it. */
export function isBelow({ name }: VerbOutline): boolean {
  return name.includes(" ");
}

function choiceOf(verbs: readonly VerbOutline[]): ArgumentOutline {
  const choices = verbs.map(({ name }) => name.slice(name.lastIndexOf(" ") + 1));
  return { name: "verb", kind: "choice", choices, listing: null, several: false };
}

export function flagsOf({ short, long }: OptionOutline): string[] {
  return [short, long].filter((flag) => flag !== null);
}

function outlineOption(option: Option): OptionOutline {
  const takesValue = option.required || option.optional;
  const listing = option instanceof ListedOption ? option.listing : null;
  return {
    short: option.short ?? null,
    long: option.long ?? null,
    description: option.description,
    value: takesValue ? { name: option.attributeName(), choices: option.argChoices ?? [], listing } : null,
  };
}

function outlineArgument(argument: Argument): ArgumentOutline {
  const choices = argument.argChoices ?? [];
  const listing = argument instanceof ListedArgument ? argument.listing : null;
  return { name: argument.name(), kind: kindOf(argument, choices), choices, listing, several: argument.variadic };
}

function kindOf(argument: Argument, choices: readonly string[]): ArgumentOutline["kind"] {
  if (choices.length > 0) return "choice";
  if (argument.parseArg === parsePlace) return "place";
  return argument instanceof ListedArgument ? "listed" : "other";
}
