/** Where a copy ends up, by the rules of `cp -R` and `docker cp`: the same for a path here and for one in a sandbox. */
import path from "node:path";
import { WrennError } from "@wrenn/contract";

export type Kind = "file" | "directory" | "other";

/** What is at a path, and where that is once links have been followed. */
export interface Found {
  readonly kind: Kind;
  readonly realPath: string;
}

/** Null when nothing is there. */
export type Look = (path: string) => Promise<Found | null>;

export interface Source {
  readonly isDirectory: boolean;
  /** What it is called by itself; empty for a root directory and for a stream. */
  readonly name: string;
  /** Its path ended in `/.`: what is in the directory is meant, not the directory. */
  readonly contentsOnly: boolean;
}

export interface Target {
  /** Of a file that is there already: where it is once links have been followed, so that they stay. */
  readonly path: string;
  /** What is there already, which a file replaces and a directory is merged into. */
  readonly existing: Kind | null;
}

/** Whether a path ends as only that of a directory can. */
export function endsAsDirectory(given: string): boolean {
  return /(?:^|\/)\.{0,2}$/.test(given);
}

/** Whether a path means what is in a directory: `.`, `dir/.`. */
export function meansContents(given: string): boolean {
  return /(?:^|\/)\.$/.test(given);
}

/**
 * @throws WrennError `file_not_found` when there is no directory to put it in, `wrong_file_type` when a file is in the way
 * of a directory or the other way round
 */
export async function chooseTarget(source: Source, given: string, look: Look): Promise<Target> {
  const found = await look(given);
  if (found?.kind === "directory") {
    if (source.isDirectory && (source.contentsOnly || source.name === "")) {
      return { path: given, existing: found.kind };
    }
    if (source.name === "") {
      throw wrongType(`${given} is a directory.`, "Name the file that standard input is written to.");
    }
    const inside = path.posix.join(given, source.name);
    return checked(source, inside, await look(inside));
  }
  if (found !== null) {
    if (endsAsDirectory(given)) throw wrongType(`${given} is not a directory.`, "Leave the slash at its end out.");
    return checked(source, given, found);
  }
  if (endsAsDirectory(given) && !source.isDirectory) throw noDirectory(given);
  const parent = path.posix.dirname(given);
  if ((await look(parent))?.kind !== "directory") throw noDirectory(parent);
  return { path: given.replace(/\/+$/, ""), existing: null };
}

function checked(source: Source, target: string, found: Found | null): Target {
  if (source.isDirectory && found !== null && found.kind !== "directory") {
    throw wrongType(`${target} is not a directory, and a directory cannot be copied onto it.`, "Choose another path.");
  }
  if (!source.isDirectory && found?.kind === "directory") {
    throw wrongType(`${target} is a directory, and a file cannot be copied onto it.`, "Choose another path.");
  }
  return { path: found?.kind === "file" ? found.realPath : target, existing: found?.kind ?? null };
}

function wrongType(message: string, suggestion: string): WrennError {
  return new WrennError("wrong_file_type", { message, suggestion });
}

function noDirectory(directory: string): WrennError {
  return new WrennError("file_not_found", {
    message: `There is no directory ${directory} to copy to.`,
    suggestion: "Make it first, or choose another path.",
  });
}
