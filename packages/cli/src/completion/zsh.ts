/** The completion script for zsh: what `_arguments` of its own completion system needs to know. */
import { flagsOf, isBelow, type ArgumentOutline, type OptionOutline, type VerbOutline } from "./outline.ts";
import { quoteForShell } from "./quote.ts";

export function zshCompletion(verbs: readonly VerbOutline[]): string {
  return `#compdef wrenn
# Completion of wrenn for zsh: source <(wrenn completion zsh), behind compinit; or a file _wrenn in a directory of fpath.

# What they are, and the verb that lists them.
_wrenn_list() {
  local what=$1 expl
  local -a listed
  shift
  listed=(\${(f)"$(_call_program $what \${(q)_wrenn_program} "$@")"})
  _wanted $what expl $what compadd -a listed
}

_wrenn_places() {
  local -a ids
  ids=(\${(f)"$(_call_program sandboxes \${(q)_wrenn_program} ls -q)"})
  _alternative 'sandboxes:sandbox:compadd -S : -a ids' 'files:file:_files'
}

_wrenn() {
  local curcontext=$curcontext state _wrenn_program=$words[1]
  local -a line verbs
  typeset -A opt_args
  _arguments -C '(- *)'{-h,--help}'[show help]' '(- *)'{-V,--version}'[show the version]' '1: :->verb' '*:: :->arguments'
  case $state in
  verb)
    verbs=(
${verbs
  .filter((verb) => !isBelow(verb))
  .map((verb) => `      ${quoteForShell(`${verb.name}:${verb.description}`)}`)
  .join("\n")}
    )
    _describe -t verbs verb verbs
    ;;
  arguments)
    local verb=$line[1]
    # A verb may be below another.
    if ((CURRENT > 2)) && [[ ${quoteForShell(
      `|${verbs
        .filter(isBelow)
        .map(({ name }) => name)
        .join("|")}|`,
    )} == *"|$verb $words[2]|"* ]]; then
      verb+=" $words[2]"
      shift words
      ((CURRENT--))
    fi
    case $verb in
${verbs.map(verbCase).join("\n")}
    esac
    ;;
  esac
}

if [[ $funcstack[1] == _wrenn ]]; then
  _wrenn "$@"
else
  compdef _wrenn wrenn
fi
`;
}

function verbCase(verb: VerbOutline): string {
  const specifications = [
    ...verb.options.flatMap(optionSpecifications),
    ...verb.arguments.map((argument, index) => argumentSpecification(argument, index + 1)),
  ];
  const lines = specifications.map((specification) => ` \\\n        ${quoteForShell(specification)}`);
  return `    ${quoteForShell(verb.name)}) _arguments -S${verb.runsCommand ? " -A '-*'" : ""}${lines.join("")} ;;`;
}

/** One for each of its flags, which exclude each other. */
function optionSpecifications(option: OptionOutline): string[] {
  const flags = flagsOf(option);
  const value = option.value === null ? "" : `:${escape(option.value.name)}:${optionAction(option.value)}`;
  return flags.map((flag) => `(${flags.join(" ")})${flag}[${escape(option.description)}]${value}`);
}

function argumentSpecification(argument: ArgumentOutline, position: number): string {
  const actions = {
    listed: listAction(argument.name, argument.listing ?? ""),
    place: "_wrenn_places",
    choice: choicesAction(argument.choices),
    other: " ",
  };
  const where = argument.several ? "*" : `${position}`;
  return `${where}:${escape(argument.name)}:${actions[argument.kind]}`;
}

function optionAction({ name, choices, listing }: NonNullable<OptionOutline["value"]>): string {
  return listing === null ? choicesAction(choices) : listAction(name, listing);
}

/** The blank keeps _arguments from putting options of its own before ours. */
function listAction(what: string, listing: string): string {
  return ` _wrenn_list ${what} ${listing}`;
}

function choicesAction(choices: readonly string[]): string {
  return choices.length === 0 ? " " : `(${choices.join(" ")})`;
}

function escape(text: string): string {
  return text.replaceAll(/[\\[\]:]/g, "\\$&");
}
