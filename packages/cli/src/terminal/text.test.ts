import { PassThrough } from "node:stream";
import { WriteStream } from "node:tty";
import { expect, it } from "vitest";
import { paint, printable } from "./text.ts";

function terminal(): NodeJS.WriteStream {
  const getColorDepth = (env?: object): number => WriteStream.prototype.getColorDepth(env);
  // A terminal is told from a file by these properties alone.
  return Object.assign(new PassThrough(), { isTTY: true, getColorDepth }) as unknown as NodeJS.WriteStream;
}

it("colours are for terminals only, and not for those that want none", () => {
  const environment = { ...process.env };
  try {
    // Node paints nothing where CI is set.
    for (const name of ["NO_COLOR", "FORCE_COLOR", "NODE_DISABLE_COLORS", "CI"]) delete process.env[name];
    process.env["TERM"] = "xterm-256color";
    expect(paint("running", "green", terminal())).toBe("\u001B[32mrunning\u001B[39m");
    expect(paint("running", "green", new PassThrough() as unknown as NodeJS.WriteStream)).toBe("running");
    process.env["NO_COLOR"] = "1";
    expect(paint("running", "green", terminal())).toBe("running");
  } finally {
    process.env = environment;
  }
});

it("what came out of a sandbox cannot move the cursor, change its colour or make a second line", () => {
  expect(printable("a\u001B[2Jb\nc\u009Bd\u202Etxt")).toBe("a\\u001b[2Jb\\u000ac\\u009bd\\u202etxt");
  expect(printable("größe 漢字 🦊")).toBe("größe 漢字 🦊");
});
