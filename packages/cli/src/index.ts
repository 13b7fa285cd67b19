/** What other packages (end-to-end tests, benchmarks) use of the command line. */
export { cliEntry, repositoryRoot } from "./server/installation.ts";
export { type Credentials, readCredentials, readServerRecord } from "./server/server-record.ts";
