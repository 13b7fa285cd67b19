/** Finds QEMU and checks that it is one this engine was written for. */
import { access, constants } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { findProgram, run } from "@wrenn/system";

export interface QemuProgram {
  readonly path: string;
  /** For instance `7.2.22`. */
  readonly version: string;
}

const programName = "qemu-system-x86_64";

/** Below it, the microvm machine or `-action shutdown=pause` behave differently; it is what Debian 12 has. */
const oldest = { major: 7, minor: 2 } as const;

/**
 * @param chosen a path that the operator names (WRENN_QEMU_BIN), else the one on PATH
 * @throws WrennError `engine_missing` or `engine_too_old`
 */
export async function detectQemu(chosen?: string): Promise<QemuProgram> {
  const path = chosen === undefined ? await findProgram(programName) : await executable(chosen);
  if (path === null) {
    throw new WrennError("engine_missing", {
      message:
        chosen === undefined
          ? `${programName} is not on PATH.`
          : `WRENN_QEMU_BIN names ${chosen}, which cannot be run.`,
    });
  }
  const { stdout } = await run(path, ["--version"]);
  const version = parseQemuVersion(stdout);
  if (version === null) {
    throw new WrennError("engine_missing", { message: `${path} does not say that it is QEMU: ${stdout.slice(0, 80)}` });
  }
  if (version.major < oldest.major || (version.major === oldest.major && version.minor < oldest.minor)) {
    throw new WrennError("engine_too_old", {
      message: `${path} is QEMU ${version.text}; ${oldest.major}.${oldest.minor} or newer is needed.`,
      details: { path, version: version.text },
    });
  }
  return { path, version: version.text };
}

/** Reads the first line of `qemu --version`. */
export function parseQemuVersion(output: string): { text: string; major: number; minor: number } | null {
  const match = /^QEMU emulator version (?<text>(?<major>\d+)\.(?<minor>\d+)(?:\.\d+)*)/.exec(output);
  const { text, major, minor } = match?.groups ?? {};
  if (text === undefined || major === undefined || minor === undefined) return null;
  return { text, major: Number(major), minor: Number(minor) };
}

async function executable(path: string): Promise<string | null> {
  try {
    await access(path, constants.X_OK);
    return path;
  } catch {
    return null;
  }
}
