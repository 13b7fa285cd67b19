/** Where Firecracker and its jailer lie, if they are there at all. */
import { findProgram } from "@wrenn/system";

export interface FirecrackerPaths {
  readonly firecracker: string | null;
  readonly jailer: string | null;
}

/** @param named what the operator names (WRENN_FIRECRACKER_BIN, WRENN_JAILER_BIN), else those on PATH */
export async function findFirecracker(named: {
  readonly firecracker?: string | undefined;
  readonly jailer?: string | undefined;
}): Promise<FirecrackerPaths> {
  return {
    firecracker: named.firecracker ?? (await findProgram("firecracker")),
    jailer: named.jailer ?? (await findProgram("jailer")),
  };
}
