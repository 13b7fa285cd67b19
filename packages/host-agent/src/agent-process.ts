/** The host agent as a process: configured by its environment, ended by signals. Its log holds no token and no environment of a sandbox. */
import { describeError } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import type { Logger } from "pino";
import { configFromEnvironment } from "./config.ts";
import { type HostAgent, startHostAgent } from "./host-agent.ts";
import type { RunStep } from "./run-step.ts";

/** Resolves when it listens. What keeps it from that is printed, and ends the process. */
export async function runAgentProcess(runStep: RunStep): Promise<void> {
  try {
    await start(runStep);
  } catch (error) {
    process.stderr.write(`${describeError(error)}\n`);
    process.exit(1);
  }
}

async function start(runStep: RunStep): Promise<void> {
  const config = configFromEnvironment(process.env);
  const log = createLog({ level: config.logLevel, base: { component: "host-agent", pid: process.pid } });
  const starting = startHostAgent(config, log, runStep);
  // From the first moment: a start that is cut short would leave what it has begun behind, for instance a canary that hangs in KVM.
  const stop = once((signal: NodeJS.Signals) => {
    log.info({ signal }, "stopping");
    void stopAgent(starting, log);
  });
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  await starting;
}

async function stopAgent(starting: Promise<HostAgent>, log: Logger): Promise<void> {
  try {
    const agent = await starting;
    await agent.close();
  } catch (error) {
    log.error({ err: error }, "stopping did not free everything");
    process.exitCode = 1;
  }
  log.info("stopped");
  log.flush();
  // Adopted VMs are watched by timers and sockets that have been let go of; nothing else is to be waited for.
  process.exit();
}

function once<Argument>(action: (argument: Argument) => void): (argument: Argument) => void {
  let done = false;
  return (argument) => {
    if (!done) action(argument);
    done = true;
  };
}
