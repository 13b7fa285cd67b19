import { Argument, Command, Option } from "commander";
import { describe, expect, it } from "vitest";
import { parsePlace } from "../copy/place.ts";
import { bashCompletion } from "./bash.ts";
import { fishCompletion } from "./fish.ts";
import { outlineOf } from "./outline.ts";
import { zshCompletion } from "./zsh.ts";

const program = new Command("wrenn");
program
  .command("send")
  .description("it's [all] here: now")
  .addArgument(new Argument("<sandbox>"))
  .addArgument(new Argument("<destination...>").argParser(parsePlace))
  .addOption(new Option("-m, --mode <mode>", "how: [fast]").choices(["slow", "fast"]))
  .option("--loud", "don't whisper");
program.command("start").addArgument(new Argument("<sandbox>")).addArgument(new Argument("<command>"));
program.command("secret", { hidden: true });

const verbs = outlineOf(program);

describe("completion", () => {
  it("knows verbs, options and what arguments can be", () => {
    expect(verbs.map(({ name }) => name)).toEqual(["send", "start", "help"]);
    expect(verbs[0]).toEqual({
      name: "send",
      description: "it's [all] here: now",
      runsCommand: false,
      options: [
        { short: "-m", long: "--mode", description: "how: [fast]", value: { name: "mode", choices: ["slow", "fast"] } },
        { short: null, long: "--loud", description: "don't whisper", value: null },
        { short: "-h", long: "--help", description: "display help for command", value: null },
      ],
      arguments: [
        { name: "sandbox", kind: "sandbox", choices: [], several: false },
        { name: "destination", kind: "place", choices: [], several: true },
      ],
    });
    expect(verbs[1]?.runsCommand).toBe(true);
  });

  it("quotes what the shells would take for their own", () => {
    expect(bashCompletion(verbs)).toContain(
      "options='-m --mode --loud -h --help' valued='-m --mode' kinds=(sandbox place+)",
    );
    expect(zshCompletion(verbs)).toContain(String.raw`'send:it'\''s [all] here: now'`);
    expect(zshCompletion(verbs)).toContain(String.raw`'(-m --mode)--mode[how\: \[fast\]]:mode:(slow fast)'`);
    expect(fishCompletion(verbs)).toContain(String.raw`-a send -d 'it\'s [all] here: now'`);
  });
});
