/** Verbs about this command line itself. */
import { Argument, type Command } from "commander";
import { examples, type Finish } from "./options.ts";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

export function addCompletionVerb(program: Command, finish: Finish): void {
  program.commandsGroup("This command line:");

  program
    .command("completion")
    .description("print a script by which a shell completes verbs, options, sandboxes and snapshots")
    .addArgument(new Argument("<shell>", "which one").choices(shells))
    .addHelpText(
      "after",
      examples(
        ["source <(wrenn completion bash)", "in ~/.bashrc"],
        ["source <(wrenn completion zsh)", "in ~/.zshrc, behind compinit"],
        ["wrenn completion fish > ~/.config/fish/completions/wrenn.fish", "once"],
      ),
    )
    .action(async (shell: Shell) => {
      const { printCompletion } = await import("../commands/completion.ts");
      finish(printCompletion(shell, program));
    });

  program.helpCommand("help [verb]", "show what a verb takes");
}
