/** The control plane runs as a process of its own (dist/main.js); others need only what its files look like. */
export { credentialsSchema } from "./services/local-credentials.ts";
export type { Credentials } from "./services/local-credentials.ts";
