/** What the command line uses of the bootstrap. */
export { runSetup, type SetupOptions } from "./setup.ts";
export type { SetupOutput } from "./step-display.ts";
