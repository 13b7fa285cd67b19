/** The form of a check and of what all of them say together. */
import { asWrennError, describeError } from "@wrenn/contract";
import { hasErrno, type Layout } from "@wrenn/system";

/** `failed`: no sandbox can run. `warning`: they run, with something missing or slower. */
export type CheckStatus = "ok" | "warning" | "failed";

export interface Outcome {
  readonly status: CheckStatus;
  /** What was found, in one line. */
  readonly finding: string;
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
  look(layout: Layout): Promise<Outcome>;
}

/** A check that cannot be made is a failure of its own, with the reason. */
export async function examine(examination: Examination, layout: Layout): Promise<Check> {
  try {
    return { name: examination.name, ...(await examination.look(layout)) };
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

export function warning(finding: string, remedy: string): Outcome {
  return { status: "warning", finding, remedy };
}

export function failed(finding: string, remedy: string): Outcome {
  return { status: "failed", finding, remedy };
}
