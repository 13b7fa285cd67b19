import { Argument, Command, Option } from "commander";
import { describe, expect, it } from "vitest";
import { parsePlace } from "../copy/place.ts";
import { sandboxArgument, template } from "../verbs/options.ts";
import { bashCompletion } from "./bash.ts";
import { fishCompletion } from "./fish.ts";
import { outlineOf } from "./outline.ts";
import { zshCompletion } from "./zsh.ts";

const program = new Command("wrenn");
program
  .command("send")
  .description("it's [all] here: now")
  .addArgument(sandboxArgument())
  .addArgument(new Argument("<destination...>").argParser(parsePlace))
  .addOption(new Option("-m, --mode <mode>", "how: [fast]").choices(["slow", "fast"]))
  .option("--loud", "don't whisper");
program.command("start").addArgument(sandboxArgument()).addArgument(new Argument("<command>"));
program.command("secret", { hidden: true });
const freezer = program.command("freezer").helpCommand(false).description("cold");
freezer
  .command("put")
  .description("in")
  .addArgument(sandboxArgument({ several: true, statuses: ["running", "paused"] }))
  .addOption(template("which"));
freezer.command("empty").description("all out");

const verbs = outlineOf(program);

describe("completion", () => {
  it("knows verbs, options and what arguments can be", () => {
    expect(verbs.map(({ name }) => name)).toEqual(["send", "start", "freezer", "freezer put", "freezer empty", "help"]);
    expect(verbs[0]).toEqual({
      name: "send",
      description: "it's [all] here: now",
      runsCommand: false,
      options: [
        {
          short: "-m",
          long: "--mode",
          description: "how: [fast]",
          value: { name: "mode", choices: ["slow", "fast"], listing: null },
        },
        { short: null, long: "--loud", description: "don't whisper", value: null },
        { short: "-h", long: "--help", description: "display help for command", value: null },
      ],
      arguments: [
        { name: "sandbox", kind: "listed", choices: [], listing: "ls -q", several: false },
        { name: "destination", kind: "place", choices: [], listing: null, several: true },
      ],
    });
    expect(verbs[1]?.runsCommand).toBe(true);
  });

  it("knows verbs below verbs, and where to ask for what there is", () => {
    const [, , group, put] = verbs;
    expect(group?.arguments).toEqual([
      { name: "verb", kind: "choice", choices: ["put", "empty"], listing: null, several: false },
    ]);
    const listing = "ls -q --status running,paused";
    expect(put?.arguments).toEqual([{ name: "sandboxes", kind: "listed", choices: [], listing, several: true }]);
    expect(put?.options[0]).toMatchObject({ long: "--template", value: { choices: [], listing: "snapshot ls -q" } });
    expect(bashCompletion(verbs)).toContain("'|freezer put|freezer empty|'");
    expect(bashCompletion(verbs)).toContain(`kinds=('list ${listing}+')`);
    expect(bashCompletion(verbs)).toContain("'freezer put --template') words=$(_wrenn_list snapshot ls -q)");
    expect(zshCompletion(verbs)).toContain(`'*:sandboxes: _wrenn_list sandboxes ${listing}'`);
    expect(fishCompletion(verbs)).toContain(`-a '(wrenn ${listing} 2>/dev/null)'`);
  });

  it("quotes what the shells would take for their own", () => {
    expect(bashCompletion(verbs)).toContain(
      "options='-m --mode --loud -h --help' valued='-m --mode' kinds=('list ls -q' place+)",
    );
    expect(zshCompletion(verbs)).toContain(String.raw`'send:it'\''s [all] here: now'`);
    expect(zshCompletion(verbs)).toContain(String.raw`'(-m --mode)--mode[how\: \[fast\]]:mode:(slow fast)'`);
    expect(fishCompletion(verbs)).toContain(String.raw`-a send -d 'it\'s [all] here: now'`);
  });
});
