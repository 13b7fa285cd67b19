/** Where this copy of Wrenn lies, and which version it is. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** The folder that holds the launcher `wrenn`. This file lies in packages/cli/src/server, compiled in dist/server. */
export const repositoryRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../../../..");

/** The program of the command line, which the server is started with too. */
export const cliEntry = fileURLToPath(new URL("../main.js", import.meta.url));

/** Where the compiled form of one of our packages lies. */
export function distOf(packageName: "@wrenn/host-agent" | "@wrenn/control-plane"): string {
  return path.dirname(fileURLToPath(import.meta.resolve(packageName)));
}

export function readVersion(): string {
  const text = readFileSync(path.join(repositoryRoot, "packages/cli/package.json"), "utf8");
  const { version } = JSON.parse(text) as { version: string };
  return version;
}

/**
 * Loads `.env` from the folder of the launcher; variables that are set already win. Not from the current folder, where
 * somebody else's `.env` may name a DATABASE_URL that is not ours.
 */
export function loadEnvironmentFile(folder: string = repositoryRoot): void {
  try {
    process.loadEnvFile(path.join(folder, ".env"));
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  }
}
