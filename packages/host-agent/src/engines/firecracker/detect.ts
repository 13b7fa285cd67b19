/** Finds Firecracker and its jailer, and checks that they belong together and are such as this engine was written for. */
import { realpath } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { isMissingFile, runUnchecked } from "@wrenn/system";

export interface FirecrackerProgram {
  /** Links followed: the jailer names the jail's directory after this file. */
  readonly path: string;
  readonly jailer: string;
  /** Of both, for instance `1.16.1`. */
  readonly version: string;
}

/** What this engine was written for and tried with; older ones differ in what they ask for and answer. */
const oldest = { major: 1, minor: 16 } as const;

/**
 * @param named what the operator names: WRENN_FIRECRACKER_BIN and WRENN_JAILER_BIN
 * @throws WrennError `engine_missing` or `engine_too_old`
 */
export async function detectFirecracker(named: {
  readonly firecracker: string;
  readonly jailer: string;
}): Promise<FirecrackerProgram> {
  const [firecracker, jailer] = await Promise.all([
    inspect("WRENN_FIRECRACKER_BIN", "Firecracker", named.firecracker),
    inspect("WRENN_JAILER_BIN", "Jailer", named.jailer),
  ]);
  if (firecracker.text !== jailer.text) {
    throw new WrennError("engine_missing", {
      message: `${firecracker.path} is Firecracker ${firecracker.text}, and ${jailer.path} the jailer of ${jailer.text}.`,
      suggestion: "Install both from one release.",
    });
  }
  if (firecracker.major < oldest.major || (firecracker.major === oldest.major && firecracker.minor < oldest.minor)) {
    throw new WrennError("engine_too_old", {
      message: `${firecracker.path} is Firecracker ${firecracker.text}; ${oldest.major}.${oldest.minor} or newer is needed.`,
      suggestion: `Install Firecracker ${oldest.major}.${oldest.minor} or newer.`,
      details: { path: firecracker.path, version: firecracker.text },
    });
  }
  return { path: firecracker.path, jailer: jailer.path, version: firecracker.text };
}

/** Reads the first line of `firecracker --version` or `jailer --version`. */
export function parseVersion(name: string, output: string): { text: string; major: number; minor: number } | null {
  const match = /^(?<program>\S+) v(?<text>(?<major>\d+)\.(?<minor>\d+)\.\d+\S*)/.exec(output);
  const { program, text, major, minor } = match?.groups ?? {};
  if (program !== name || text === undefined || major === undefined || minor === undefined) return null;
  return { text, major: Number(major), minor: Number(minor) };
}

async function inspect(
  variable: string,
  name: string,
  file: string,
): Promise<{ path: string; text: string; major: number; minor: number }> {
  const missing = (what: string, cause?: unknown): WrennError =>
    new WrennError("engine_missing", {
      message: `${variable} names ${file}, ${what}.`,
      suggestion: "Install Firecracker with its jailer, and name both.",
      ...(cause === undefined ? {} : { cause }),
    });
  const found = await realpath(file).catch((error: unknown) => {
    throw isMissingFile(error) ? missing("which does not exist", error) : error;
  });
  const { stdout } = await runUnchecked(found, ["--version"]).catch((error: unknown) => {
    throw missing("which cannot be run", error);
  });
  const version = parseVersion(name, stdout);
  if (version === null) throw missing(`which does not say that it is ${name}: ${stdout.slice(0, 80)}`);
  return { path: found, ...version };
}
