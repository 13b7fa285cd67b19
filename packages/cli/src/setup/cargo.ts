/** Finds cargo, and has it build one of the native programs. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { z } from "zod";
import { findOnPath } from "./programs.ts";
import type { StepProgress } from "./step.ts";

const buildTimeoutMs = 1_800_000;

export interface CargoBuild {
  /** Package of the workspace. */
  readonly package: string;
  /** Target of the package, as cargo's messages name it. */
  readonly target: string;
  readonly kind: "executable" | "shared-object";
}

/** @returns path of what was built, below the workspace's target folder */
export async function buildWithCargo(native: string, build: CargoBuild, progress: StepProgress): Promise<string> {
  const cargo = await findCargo(native);
  // One package at a time: together they would share the features of their dependencies, and one program's bytes would depend
  // on what another needs.
  const common = ["--release", "--locked", "--color=never", "--message-format=json-render-diagnostics"];
  const [args, env] =
    build.kind === "executable"
      ? [["build", ...common, "--package", build.package], {}]
      : // A shared object cannot be made of the workspace's static target: no flags at all take the place of its flags.
        [["rustc", ...common, "--package", build.package, "--crate-type", "cdylib"], { RUSTFLAGS: "" }];
  const { stdout } = await run(cargo, args, {
    cwd: native,
    env: { ...process.env, ...env },
    timeoutMs: buildTimeoutMs,
    signal: progress.signal,
    // Standard output is messages for programs, standard error what people read.
    onLine: (line) => {
      if (!line.startsWith("{")) progress.say(line);
    },
  });
  const built = findArtifact(stdout, build);
  if (built === null) {
    throw new WrennError("setup_failed", {
      message: `cargo build succeeded, but named no ${build.kind} ${build.target}.`,
    });
  }
  return built;
}

const artifactSchema = z.object({
  reason: z.literal("compiler-artifact"),
  target: z.object({ name: z.string() }),
  executable: z.string().nullable(),
  filenames: z.array(z.string()),
});

/** Where cargo says it put what it built: the folder depends on its configuration and environment. */
export function findArtifact(messages: string, build: Pick<CargoBuild, "target" | "kind">): string | null {
  for (const line of messages.split("\n")) {
    if (!line.startsWith("{")) continue;
    const artifact = artifactSchema.safeParse(JSON.parse(line));
    if (!artifact.success || artifact.data.target.name !== build.target) continue;
    const { executable, filenames } = artifact.data;
    const built = build.kind === "executable" ? executable : filenames.find((name) => name.endsWith(".so"));
    if (built !== undefined && built !== null) return built;
  }
  return null;
}

/**
 * @throws WrennError `dependency_missing` when there is no cargo, or it is older than the workspace's `rust-version`
 */
async function findCargo(native: string): Promise<string> {
  const manifest = await readFile(path.join(native, "Cargo.toml"), "utf8");
  const needed = /^rust-version = "([\d.]+)"$/m.exec(manifest)?.[1] ?? "";
  // rustup installs it here, and `sudo` drops it from PATH.
  const cargo = await findOnPath("cargo", [
    path.join(process.env["CARGO_HOME"] ?? path.join(homedir(), ".cargo"), "bin"),
  ]);
  if (cargo === null) {
    throw new WrennError("dependency_missing", {
      message: `cargo, which builds Wrenn's native programs, is not installed for ${process.env["USER"] ?? "this user"}.`,
      suggestion:
        `Install Rust ${needed} or newer with rustup (https://rustup.rs) as the user who runs this command, root: ` +
        "no package of Debian 12 is new enough. Then run the command again.",
      details: { program: "cargo", needed },
    });
  }
  const { stdout } = await run(cargo, ["--version"], { cwd: native });
  const version = /^cargo ([\d.]+)/.exec(stdout)?.[1] ?? "";
  if (isOlder(version, needed)) {
    throw new WrennError("dependency_missing", {
      message: `${cargo} is version ${version}; building Wrenn's native programs needs Rust ${needed} or newer.`,
      suggestion: "Update it: rustup update stable. Then run the command again.",
      details: { program: "cargo", version, needed },
    });
  }
  return cargo;
}

/** Whether a version of dotted numbers comes before another. */
export function isOlder(version: string, needed: string): boolean {
  const parts = version.split(".").map(Number);
  for (const [index, number] of needed.split(".").map(Number).entries()) {
    const difference = (parts[index] ?? 0) - number;
    if (difference !== 0) return difference < 0;
  }
  return false;
}
