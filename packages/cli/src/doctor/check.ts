/** The form of a check and of what all of them say together. */
import { asWrennError, describeError } from "@wrenn/contract";
import { hasErrno, type Layout } from "@wrenn/system";
import type { Needs } from "./needs.ts";

/**
 * `failed`: no sandbox can run, or not as the environment demands. `warning`: they run, with something missing or slower. `unneeded`: it
 * is not there, and what runs sandboxes here does not need it.
 */
export type CheckStatus = "ok" | "warning" | "failed" | "unneeded";

export interface Outcome {
  readonly status: CheckStatus;
  /** What was found, in one line. */
  readonly finding: string;
  /** Why it matters. Absent where the finding says it. */
  readonly why?: string;
  /** What mends it: a command, or a sentence. Absent when there is nothing to mend. */
  readonly remedy?: string;
}

export interface Check extends Outcome {
  readonly name: string;
}

/** Public as `wrenn doctor --json` prints it. */
export interface DoctorReport {
  /** False when any check failed. */
  readonly ok: boolean;
  readonly checks: readonly Check[];
}

/** Looks at one thing of the machine: at what the kernel does now, never at what a configuration file asks of it. */
export interface Examination {
  readonly name: string;
  look(layout: Layout, needs: Needs): Promise<Outcome>;
}

/** A check that cannot be made is a failure of its own, with the reason. */
export async function examine(examination: Examination, layout: Layout, needs: Needs): Promise<Check> {
  try {
    return { name: examination.name, ...(await examination.look(layout, needs)) };
  } catch (thrown) {
    if (hasErrno(thrown, "EACCES") || hasErrno(thrown, "EPERM")) {
      return { name: examination.name, ...failed(describeError(thrown), "Run the same command with sudo.") };
    }
    const error = asWrennError(thrown);
    const internal = error.code === "internal";
    return {
      name: examination.name,
      status: "failed",
      finding: internal ? describeError(error.cause ?? error) : error.message,
      ...(internal ? {} : { remedy: error.suggestion }),
    };
  }
}

export function ok(finding: string): Outcome {
  return { status: "ok", finding };
}

export function warning(finding: string, remedy: string, why?: string): Outcome {
  return { status: "warning", finding, remedy, ...(why === undefined ? {} : { why }) };
}

export function failed(finding: string, remedy: string, why?: string): Outcome {
  return { status: "failed", finding, remedy, ...(why === undefined ? {} : { why }) };
}
