/** The command line `wrenn`. */
import { CommanderError } from "commander";
import { makeProgram } from "./program.ts";
import { loadEnvironmentFile } from "./server/installation.ts";

/** As shells and commander's users expect it; `run` keeps all but a few codes for the command it runs. */
const usageExitCode = 2;
const runFailedExitCode = 125;
const failedExitCode = 1;

const isRun = process.argv[2] === "run";

try {
  loadEnvironmentFile();
  let exitCode = 0;
  await makeProgram((code) => (exitCode = code)).parseAsync();
  // Standard input may still be open, and would keep the process waiting for it.
  process.exit(exitCode);
} catch (error) {
  if (error instanceof CommanderError) {
    // Commander has said what was wrong, or shown the help that was asked for.
    process.exit(error.exitCode === 0 ? 0 : isRun ? runFailedExitCode : usageExitCode);
  }
  const { reportError } = await import("./terminal/messages.ts");
  reportError(error, { json: process.argv.includes("--json") });
  process.exit(isRun ? runFailedExitCode : failedExitCode);
}
