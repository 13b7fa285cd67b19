/** `npm run lab -- COMMAND`: see `--help`, and docs/lab.md. */
import { constants } from "node:os";
import { repositoryRoot } from "@wrenn/cli";
import { describeError } from "@wrenn/contract";
import { layoutFromEnvironment } from "@wrenn/system";
import { labUsage, parseLabOptions } from "./options.ts";
import { runLab } from "./run-lab.ts";

/** As timeout(1) and docker(1) have them. */
const exitCodes = { late: 124, labFailed: 125, usage: 2 } as const;

const interruptions = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

process.exitCode = await main();

async function main(): Promise<number> {
  const abort = new AbortController();
  let received: NodeJS.Signals | undefined;
  for (const signal of interruptions) {
    process.on(signal, () => {
      received ??= signal;
      abort.abort(new Error(`interrupted by ${signal}`));
    });
  }
  for (const stream of [process.stdout, process.stderr]) {
    // Whoever reads has gone.
    stream.on("error", (error) => abort.abort(error));
  }
  let options;
  try {
    options = parseLabOptions(process.argv.slice(2), repositoryRoot);
  } catch (error) {
    console.error(`lab: ${describeError(error)}\n\n${labUsage}`);
    return exitCodes.usage;
  }
  if (options === null) {
    console.log(labUsage);
    return 0;
  }
  try {
    const outcome = await runLab(options, layoutFromEnvironment(), abort.signal);
    switch (outcome.how) {
      case "exited":
        return outcome.code;
      case "killed":
        console.error(`lab: the command was ended by signal ${outcome.signal}`);
        return 128 + outcome.signal;
      case "late":
        console.error(`lab: the command has not ended within ${options.deadlineMs / 1_000} s`);
        return exitCodes.late;
      default:
        return outcome satisfies never;
    }
  } catch (error) {
    console.error(`lab: ${describeError(error)}`);
    if (received !== undefined) return 128 + constants.signals[received];
    return exitCodes.labFailed;
  }
}
