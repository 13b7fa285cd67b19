/** What the command line says of itself: on standard error, so that standard output is the command's or the result's alone. */
import { asWrennError, describeError, type ErrorBody } from "@wrenn/contract";
import { printable } from "./text.ts";

/** A panic with its call trace is longer; --json has all there is. */
const consoleLines = 12;

export function say(message: string): void {
  process.stderr.write(`${message}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/**
 * Reports a failure: what happened, what to do, and the code to look up; as JSON where that was asked for.
 * @param options `about`: which of several things it happened to
 */
export function reportError(thrown: unknown, options: { json: boolean; about?: string | undefined }): void {
  const error = asWrennError(thrown);
  if (options.json) {
    printJson(error.toBody() satisfies ErrorBody);
  } else {
    // An internal error's message says nothing; its cause does, and whoever sees this runs the machine.
    const message = error.code === "internal" && error.cause instanceof Error ? error.cause.message : error.message;
    const about = options.about === undefined ? "" : `${printable(options.about)}: `;
    say(`wrenn: ${about}${message}\n       ${error.suggestion} (${error.code})`);
    sayConsoleTail(error.details?.["console_tail"]);
  }
  if (process.env["WRENN_DEBUG"] !== undefined) {
    say(describeError(thrown));
    if (thrown instanceof Error && thrown.stack !== undefined) say(thrown.stack);
  }
}

/** The last lines of a guest's console, where an error carries them. */
function sayConsoleTail(tail: unknown): void {
  if (typeof tail !== "string" || tail.trim() === "") return;
  const lines = tail.trim().split("\n").slice(-consoleLines);
  say(`       The guest's console ends with:\n${lines.map((line) => `       | ${line}`).join("\n")}`);
}
