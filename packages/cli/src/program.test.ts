import { CommanderError } from "commander";
import { describe, expect, it } from "vitest";
import { makeProgram } from "./program.ts";

async function parse(...args: string[]): Promise<unknown> {
  const program = makeProgram(() => undefined);
  for (const command of program.commands) {
    command.exitOverride().configureOutput({ writeErr: () => undefined, writeOut: () => undefined });
    command.action((...parsed: unknown[]) => {
      seen = parsed;
    });
  }
  program.configureOutput({ writeErr: () => undefined, writeOut: () => undefined });
  let seen: unknown[] = [];
  await program.parseAsync(["node", "wrenn", ...args]);
  return seen.slice(0, -1);
}

describe("wrenn run", () => {
  it("takes options up to the command, and leaves the rest to it", async () => {
    const parsed = await parse("run", "--memory", "1G", "-e", "A=1", "-e", "B=2", "--", "ls", "-e", "--memory");
    expect(parsed).toMatchObject(["ls", ["-e", "--memory"], { memory: 1_024, env: { A: "1", B: "2" }, keep: false }]);
  });

  it("needs no dashes before a command", async () => {
    expect(await parse("run", "-t", "python3", "-c", "print(1)", "--json")).toMatchObject([
      "python3",
      ["-c", "print(1)", "--json"],
      { tty: true },
    ]);
  });

  it("needs a command", async () => {
    await expect(parse("run", "--keep")).rejects.toBeInstanceOf(CommanderError);
  });
});

describe("wrenn down", () => {
  it("does not both destroy and leave sandboxes", async () => {
    await expect(parse("down", "--destroy", "--leave-running")).rejects.toThrow("cannot be used with");
  });
});
