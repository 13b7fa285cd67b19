/** `wrenn completion`: a script made from the verbs and options there are. */
import type { Command } from "commander";
import { bashCompletion } from "../completion/bash.ts";
import { fishCompletion } from "../completion/fish.ts";
import { outlineOf } from "../completion/outline.ts";
import { zshCompletion } from "../completion/zsh.ts";
import type { Shell } from "../verbs/completion.ts";

const scripts = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion } as const;

export function printCompletion(shell: Shell, program: Command): number {
  process.stdout.write(scripts[shell](outlineOf(program)));
  return 0;
}
