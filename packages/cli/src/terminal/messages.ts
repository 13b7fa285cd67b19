/** What the command line says of itself: on standard error, so that standard output is the command's or the result's alone. */
import { asWrennError, describeError, type ErrorBody } from "@wrenn/contract";

export function say(message: string): void {
  process.stderr.write(`${message}\n`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

/** Reports a failure: what happened, what to do, and the code to look up; as JSON where that was asked for. */
export function reportError(thrown: unknown, options: { json: boolean }): void {
  const error = asWrennError(thrown);
  if (options.json) {
    printJson(error.toBody() satisfies ErrorBody);
  } else {
    // An internal error's message says nothing; its cause does, and whoever sees this runs the machine.
    const message = error.code === "internal" && error.cause instanceof Error ? error.cause.message : error.message;
    say(`wrenn: ${message}\n       ${error.suggestion} (${error.code})`);
  }
  if (process.env["WRENN_DEBUG"] !== undefined) {
    say(describeError(thrown));
    if (thrown instanceof Error && thrown.stack !== undefined) say(thrown.stack);
  }
}
