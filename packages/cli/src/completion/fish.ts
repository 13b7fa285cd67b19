/** The completion script for fish: a line for each thing there is to complete. */
import { quoteForShell } from "./quote.ts";
import { flagsOf, isBelow, type ArgumentOutline, type OptionOutline, type VerbOutline } from "./outline.ts";

const places = "(wrenn ls -q 2>/dev/null | string replace -r '$' ':')";

export function fishCompletion(verbs: readonly VerbOutline[]): string {
  const below = verbs.filter(isBelow).map(({ name }) => quoteForShell(name));
  const lines = verbs.flatMap((verb) => [
    ...(isBelow(verb) ? [] : [verbLine(verb)]),
    ...verb.options.map((option) => `${when(`__wrenn_option_of ${quoteForShell(verb.name)}`)} ${optionWords(option)}`),
    ...verb.arguments.flatMap((argument, index) => argumentLines(verb, argument, index)),
  ]);
  return `# Completion of wrenn for fish: wrenn completion fish > ~/.config/fish/completions/wrenn.fish

function __wrenn_needs_verb
    test (count (commandline -opc)) -eq 1
end

# The verb, with the one that is below it where there is such.
function __wrenn_verb
    set -l words (commandline -opc)
    if contains -- "$words[2] $words[3]" ${below.join(" ")}
        echo "$words[2] $words[3]"
    else
        echo "$words[2]"
    end
end

# How many arguments of the verb are before the word that is being completed: options and their values are none.
function __wrenn_arguments_before
    set -l words (commandline -opc)
    set -l verb (__wrenn_verb)
    set -l valued
    switch "$verb"
${verbs.map((verb) => `        case ${quoteForShell(verb.name)}\n            set valued ${valuedFlags(verb).join(" ")}`).join("\n")}
    end
    set -l before 0
    set -l skip 0
    for word in $words[(math 2 + (count (string split ' ' -- $verb)))..-1]
        if test $skip -eq 1
            set skip 0
        else if contains -- $word $valued
            set skip 1
        else if not string match -q -- '-*' $word
            set before (math $before + 1)
        end
    end
    echo $before
end

# Behind the first argument of a verb that runs a command, everything is for that command.
function __wrenn_option_of
    test (__wrenn_verb) = $argv[1]; or return 1
    not contains -- $argv[1] ${verbs.flatMap((verb) => (verb.runsCommand ? [verb.name] : [])).join(" ")}; or test (__wrenn_arguments_before) -eq 0
end

function __wrenn_argument_of
    test (__wrenn_verb) = $argv[1]; or return 1
    set -l before (__wrenn_arguments_before)
    test $before -ge $argv[2]; and test $before -le $argv[3]
end

complete -c wrenn -f
${lines.join("\n")}
`;
}

function verbLine({ name, description }: VerbOutline): string {
  return `complete -c wrenn -n __wrenn_needs_verb -a ${name} -d ${quote(description)}`;
}

function listed(listing: string): string {
  return `(wrenn ${listing} 2>/dev/null)`;
}

function valuedFlags(verb: VerbOutline): string[] {
  return verb.options.filter(({ value }) => value !== null).flatMap(flagsOf);
}

function when(condition: string): string {
  return `complete -c wrenn -n ${quote(condition)}`;
}

function optionWords({ short, long, description, value }: OptionOutline): string {
  const words = [
    ...(short === null ? [] : [`-s ${short.slice(1)}`]),
    ...(long === null ? [] : [`-l ${long.slice(2)}`]),
    ...(value === null ? [] : ["-x"]),
    ...(value === null || value.choices.length === 0 ? [] : [`-a ${quote(value.choices.join(" "))}`]),
    ...(value === null || value.listing === null ? [] : [`-a ${quote(listed(value.listing))}`]),
    `-d ${quote(description)}`,
  ];
  return words.join(" ");
}

function argumentLines(verb: VerbOutline, argument: ArgumentOutline, index: number): string[] {
  const condition = when(
    `__wrenn_argument_of ${quoteForShell(verb.name)} ${index} ${argument.several ? 1_000 : index}`,
  );
  const offered = {
    listed: argument.listing === null ? [] : [`-a ${quote(listed(argument.listing))}`],
    place: [`-F -a ${quote(places)}`],
    choice: [`-a ${quote(argument.choices.join(" "))}`],
    other: [],
  };
  return offered[argument.kind].map((words) => `${condition} ${words}`);
}

function quote(text: string): string {
  return `'${text.replaceAll(/[\\']/g, "\\$&")}'`;
}
