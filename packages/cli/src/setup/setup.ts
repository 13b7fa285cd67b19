/** The bootstrap: from a bare machine with Node to one on which VMs boot. Says nothing when there is nothing to do. */
import { WrennError } from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import { directoriesStep } from "./directories-step.ts";
import { initramfsStep, kernelStep, rootfsStep } from "./image-steps.ts";
import { nativeProgramsStep } from "./native-programs-step.ts";
import type { SetupOutput } from "./step-display.ts";
import { runSetupSteps } from "./step-runner.ts";
import { systemPackagesStep } from "./system-packages-step.ts";

export interface SetupOptions {
  readonly layout: Layout;
  /** Where `native/` lies. */
  readonly repositoryRoot: string;
  readonly output: SetupOutput;
}

const interruptions = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Does what is not done yet. Interrupted or failed, the next call goes on where this one stopped; called twice at once, the
 * second waits for the first.
 * @throws WrennError `root_required`, `dependency_missing`, `unsupported_machine`, `host_out_of_disk` or `setup_failed`
 */
export async function runSetup(options: SetupOptions): Promise<void> {
  const { layout, repositoryRoot, output } = options;
  const interruption = new AbortController();
  let received: NodeJS.Signals | undefined;
  const interrupt = (signal: NodeJS.Signals): void => {
    received ??= signal;
    interruption.abort(new WrennError("setup_failed", { message: `The set-up was interrupted by ${signal}.` }));
  };
  for (const signal of interruptions) process.on(signal, interrupt);
  try {
    await runSetupSteps({
      steps: [
        systemPackagesStep(),
        directoriesStep(layout),
        nativeProgramsStep(layout, repositoryRoot),
        kernelStep(layout),
        initramfsStep(layout),
        rootfsStep(layout),
      ],
      lockFile: layout.lock("setup"),
      output,
      signal: interruption.signal,
    });
  } finally {
    for (const signal of interruptions) process.off(signal, interrupt);
    // Everything this run started has ended: now the signal does what it would have done at once.
    if (received !== undefined) process.kill(process.pid, received);
  }
}
