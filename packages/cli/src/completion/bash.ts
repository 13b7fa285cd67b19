/** The completion script for bash. It needs nothing but bash 4.4, and starts `wrenn` only to list sandboxes and snapshots. */
import { flagsOf, isBelow, type ArgumentOutline, type VerbOutline } from "./outline.ts";
import { quoteForShell } from "./quote.ts";

export function bashCompletion(verbs: readonly VerbOutline[]): string {
  return `# Completion of wrenn for bash: source <(wrenn completion bash)

# What a verb lists, as words.
_wrenn_list() {
  "\${COMP_WORDS[0]}" "$@" 2>/dev/null
}

_wrenn() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]}
  local verb=\${COMP_WORDS[1]} options= valued= choices= words= word
  local -a kinds
  local -i index position=0 ended=0 runs first=2
  COMPREPLY=()
  # Bash makes three words of --option=value.
  if [[ $prev == = ]]; then
    prev=\${COMP_WORDS[COMP_CWORD-2]}
  elif [[ $cur == = ]]; then
    cur=
  fi
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W ${quoteForShell([...verbs.filter((verb) => !isBelow(verb)).map(({ name }) => name), "--help", "--version"].join(" "))} -- "$cur")
    return
  fi
  # A verb may be below another.
  if ((COMP_CWORD > 2)) && [[ ${quoteForShell(
    `|${verbs
      .filter(isBelow)
      .map(({ name }) => name)
      .join("|")}|`,
  )} == *"|$verb \${COMP_WORDS[2]}|"* ]]; then
    verb+=" \${COMP_WORDS[2]}"
    first=3
  fi
  # What the verb takes: all its options, those that a value follows, and a kind for each argument (+ for the rest).
  case $verb in
${verbs.map(verbCase).join("\n")}
  *) return ;;
  esac
  for ((index = first; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    if ((ended)); then
      position+=1
    elif [[ $word == -- ]]; then
      ended=1
    elif [[ " $valued " == *" $word "* ]]; then
      [[ \${COMP_WORDS[index+1]} != = ]] || index+=1
      index+=1
    elif [[ $word != -* ]]; then
      position+=1
    fi
  done
  if ((!ended)) && [[ " $valued " == *" $prev "* ]]; then
    case "$verb $prev" in
${optionChoiceCases(verbs).join("\n")}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    return
  fi
  # Behind the first argument of such a verb, everything is for the command that it runs.
  ((!runs || position == 0)) || return
  word=
  if ((position < \${#kinds[@]})); then
    word=\${kinds[position]}
  elif ((\${#kinds[@]})) && [[ \${kinds[-1]} == *+ ]]; then
    word=\${kinds[-1]}
  fi
  if ((!ended)) && [[ $cur == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    return
  fi
  word=\${word%+}
  case $word in
  "list "*) mapfile -t COMPREPLY < <(compgen -W "$(_wrenn_list \${word#list })" -- "$cur") ;;
  choice) mapfile -t COMPREPLY < <(compgen -W "$choices" -- "$cur") ;;
  place)
    mapfile -t COMPREPLY < <(compgen -S : -W "$(_wrenn_list ls -q)" -- "$cur")
    if ((\${#COMPREPLY[@]})); then
      compopt -o nospace
      while IFS= read -r word; do COMPREPLY+=("$(printf %q "$word")"); done < <(compgen -f -- "$cur")
    else
      compopt -o default
    fi
    ;;
  esac
}

complete -F _wrenn wrenn
`;
}

function verbCase(verb: VerbOutline): string {
  const lists = {
    options: verb.options.flatMap(flagsOf),
    valued: verb.options.filter(({ value }) => value !== null).flatMap(flagsOf),
    kinds: verb.arguments.map(kindWord),
    choices: verb.arguments.flatMap(({ choices }) => choices),
  };
  const assignments = Object.entries(lists)
    .filter(([, words]) => words.length > 0)
    .map(
      ([name, words]) =>
        `${name}=${name === "kinds" ? `(${words.map(quoteForShell).join(" ")})` : quoteForShell(words.join(" "))}`,
    );
  return `  ${quoteForShell(verb.name)}) ${[...assignments, `runs=${verb.runsCommand ? 1 : 0}`].join(" ")} ;;`;
}

function kindWord({ kind, listing, several }: ArgumentOutline): string {
  const word = listing === null ? kind : `list ${listing}`;
  return several ? `${word}+` : word;
}

function optionChoiceCases(verbs: readonly VerbOutline[]): string[] {
  return verbs.flatMap((verb) =>
    verb.options.flatMap((option) => {
      const { choices = [], listing = null } = option.value ?? {};
      if (choices.length === 0 && listing === null) return [];
      const patterns = flagsOf(option).map((flag) => quoteForShell(`${verb.name} ${flag}`));
      const words = listing === null ? quoteForShell(choices.join(" ")) : `$(_wrenn_list ${listing})`;
      return [`    ${patterns.join(" | ")}) words=${words} ;;`];
    }),
  );
}
