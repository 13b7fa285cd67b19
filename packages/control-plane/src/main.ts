/** The control plane as a process. Exit codes: 0 stopped when asked to, 1 could not start or go on, 3 port taken. */
import { asWrennError, deadlines, describeError, httpLimits, intervals } from "@wrenn/contract";
import { createLog } from "@wrenn/system";
import { readConfig } from "./config.ts";
import { startControlPlane } from "./control-plane.ts";

const exitCodes = { failed: 1, portTaken: 3 } as const;

async function main(): Promise<void> {
  const config = readConfig(process.env);
  const log = createLog({ level: config.logLevel });
  const controlPlane = await startControlPlane(config, log, {
    reconcileMs: intervals.reconcile,
    hostSilenceMs: intervals.hostSilence,
    roundMs: deadlines.reconcileRound,
    drainMs: deadlines.serverDrain,
    sandboxActivityMs: intervals.sandboxActivity,
    sandboxTimeoutsMs: intervals.sandboxTimeouts,
    sandboxTimeoutsResumeMs: intervals.sandboxTimeoutsResume,
    idempotencyKeysMs: intervals.idempotencyKeys,
    replicaSilenceMs: intervals.withoutDatabase,
    requestHeadMs: deadlines.requestHead,
    requestBodyMs: deadlines.requestBody,
    maxConnections: httpLimits.connections,
    uploadIdleMs: deadlines.uploadIdle,
    streams: {
      openingMs: deadlines.streamOpening,
      pingMs: deadlines.streamPing,
      pongMs: deadlines.streamPong,
    },
  });
  let stopping = false;
  const stop = (signal: NodeJS.Signals): void => {
    if (stopping) return;
    stopping = true;
    log.info({ signal }, "stopping");
    // Whatever hangs must not keep the process: being killed is harmless at any moment.
    setTimeout(() => process.exit(exitCodes.failed), deadlines.serverStop).unref();
    controlPlane.stop().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, "did not stop in order");
        process.exit(exitCodes.failed);
      },
    );
  };
  process.on("SIGTERM", stop).on("SIGINT", stop);
}

main().catch((error: unknown) => {
  const wrennError = asWrennError(error);
  process.stderr.write(`${describeError(error)}\n  ${wrennError.suggestion}\n`);
  process.exit(wrennError.code === "port_taken" ? exitCodes.portTaken : exitCodes.failed);
});
