/** apt's lists of what its sources offer, which may be missing (a new machine) or outdated (files named there are gone). */
import { WrennError } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { toolOptions, type BuildOptions } from "./build.ts";

/** Does the work; when that fails, fetches the lists anew and does it once more. */
export async function refreshingPackageLists<Result>(
  options: Pick<BuildOptions, "onProgress" | "signal">,
  work: () => Promise<Result>,
): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof WrennError)) throw error;
  }
  await run("apt-get", ["update"], toolOptions(options));
  return work();
}
