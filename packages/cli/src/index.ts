/** What other packages (end-to-end tests, benchmarks, the lab) use of the command line. */
export { cliEntry, repositoryRoot } from "./server/installation.ts";
export { type Credentials, readCredentials, readServerRecord } from "./server/server-record.ts";
export { withSetupLock } from "./setup/setup-lock.ts";
export type { SetupStep } from "./setup/step.ts";
export { runSetupSteps } from "./setup/step-runner.ts";
