/** The host agent's program. */
import { runAgentProcess } from "./agent-process.ts";
import { runPlainly } from "./run-step.ts";

await runAgentProcess(runPlainly);
