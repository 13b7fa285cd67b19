/** Installs the distribution's packages that Wrenn needs and this machine lacks. */
import { WrennError } from "@wrenn/contract";
import { refreshingPackageLists } from "@wrenn/images";
import { pollUntil, run, type RunOptions, runUnchecked } from "@wrenn/system";
import { findOnPath, missingPackages } from "./programs.ts";
import type { SetupStep, StepProgress } from "./step.ts";

/** Seconds to wait for another apt or dpkg on the machine, for instance the nightly upgrade. */
const dpkgLockTimeoutS = 300;
/** dpkg(1): the state of packages cannot be accessed. */
const dpkgLockedExitCode = 2;
const installTimeoutMs = 1_200_000;

export function systemPackagesStep(): SetupStep {
  return {
    name: "Installing system packages",
    expectedSeconds: 40,
    disk: { path: "/usr", bytes: 700 * 1_048_576 },
    needsRoot: true,
    isDone: async () => (await missingPackages()).length === 0,
    run: installMissing,
  };
}

/** Finishes installations that were interrupted. Unlike apt-get, dpkg does not itself wait for another that is at work. */
async function configureInstalled(options: RunOptions): Promise<void> {
  const args = ["--configure", "-a", "--force-confold"];
  await pollUntil(
    async () => {
      const { exitCode, stderr } = await runUnchecked("dpkg", args, options);
      if (exitCode === dpkgLockedExitCode) return null;
      if (exitCode !== 0) {
        throw new WrennError("subprocess_failed", {
          message: `dpkg ${args.join(" ")} exited with ${exitCode}: ${stderr.trim().slice(-2_000)}`,
        });
      }
      return true;
    },
    { timeoutMs: dpkgLockTimeoutS * 1_000, intervalMs: 1_000, ...(options.signal && { signal: options.signal }) },
  );
}

async function installMissing({ say, signal }: StepProgress): Promise<void> {
  const packages = await missingPackages();
  const command = `apt-get install --no-install-recommends ${packages.join(" ")}`;
  if ((await findOnPath("apt-get")) === null) {
    throw new WrennError("dependency_missing", {
      message: `These packages are missing, and this machine has no apt-get to install them: ${packages.join(", ")}.`,
      suggestion: `Install what holds the same programs here. On Debian or Ubuntu: ${command}`,
      details: { packages },
    });
  }
  const options = {
    onLine: say,
    signal,
    timeoutMs: installTimeoutMs,
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C.UTF-8" },
  };
  say(packages.join(" "));
  const waitForDpkg = ["-o", `DPkg::Lock::Timeout=${dpkgLockTimeoutS}`];
  const install = (): Promise<unknown> =>
    refreshingPackageLists({ onProgress: say, signal }, () =>
      run("apt-get", [...waitForDpkg, "install", "--yes", "--no-install-recommends", ...packages], options),
    );
  try {
    try {
      await install();
    } catch {
      signal.throwIfAborted();
      // An interrupted installation leaves packages half configured, with which apt-get refuses to install others.
      await configureInstalled(options);
      await install();
    }
  } catch (cause) {
    signal.throwIfAborted();
    throw new WrennError("dependency_missing", {
      message: `${packages.join(", ")} could not be installed: ${cause instanceof Error ? cause.message : String(cause)}`,
      suggestion: `Run this, mend what it names, then run the command again: ${command}`,
      details: { packages },
      cause,
    });
  }
  const still = await missingPackages();
  if (still.length > 0) {
    throw new WrennError("dependency_missing", {
      message: `${still.join(", ")} installed, and yet their programs are not found.`,
      suggestion: `Look at what this says: apt-get install --reinstall ${still.join(" ")}`,
      details: { packages: still },
    });
  }
}
