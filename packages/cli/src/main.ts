/** The command line `wrenn`. */
import { CommanderError } from "commander";
import { makeProgram, verbsOfCommands } from "./program.ts";
import { loadEnvironmentFile } from "./server/installation.ts";
import { flushOutput } from "./terminal/flush.ts";

/** As shells and commander's users expect it; verbs that run a command leave all but a few codes to that. */
const usageExitCode = 2;
const runFailedExitCode = 125;
const failedExitCode = 1;

const runsCommand = verbsOfCommands.has(process.argv[2]);

// A terminal or reader that goes away is no reason to drop what is under way: a server still has to be stopped in order.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

const exitCode = await runProgram();
await flushOutput();
// Standard input may still be open, and would keep the process waiting for it.
process.exit(exitCode);

async function runProgram(): Promise<number> {
  try {
    loadEnvironmentFile();
    let finished = 0;
    await makeProgram((code) => (finished = code)).parseAsync();
    return finished;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said what was wrong, or shown the help that was asked for.
      return error.exitCode === 0 ? 0 : runsCommand ? runFailedExitCode : usageExitCode;
    }
    const { GivenUp } = await import("./session/interrupts.ts");
    if (error instanceof GivenUp) return error.exitCode;
    const { reportError } = await import("./terminal/messages.ts");
    reportError(error, { json: process.argv.includes("--json") });
    return runsCommand ? runFailedExitCode : failedExitCode;
  }
}
