/** The two ends of a copy: a path here, a path in a sandbox, or our own standard input or output. */
import { InvalidArgumentError } from "commander";

export type Place =
  | { readonly kind: "stream" }
  | { readonly kind: "local"; readonly path: string }
  | { readonly kind: "sandbox"; readonly sandbox: string; readonly path: string };

/** Where a path in a sandbox starts that has nothing behind the colon: the user's home directory. */
const homeDirectory = ".";

/**
 * `-`, `path` or `sandbox:path`. A colon before any slash belongs to a sandbox, as with `docker cp` and `scp`; a file here
 * whose name has one is `./name:with:colons`.
 */
export function parsePlace(text: string): Place {
  if (text === "") throw new InvalidArgumentError("A path cannot be empty.");
  if (text === "-") return { kind: "stream" };
  const [, sandbox, path = ""] = /^([^/:]+):(.*)$/s.exec(text) ?? [];
  if (sandbox === undefined) return { kind: "local", path: text };
  return { kind: "sandbox", sandbox, path: path === "" ? homeDirectory : path };
}

export function describePlace(place: Place): string {
  if (place.kind === "stream") return "-";
  return place.kind === "local" ? place.path : `${place.sandbox}:${place.path}`;
}
