/** A copy between here and a sandbox, in whichever direction. */
import { WrennError } from "@wrenn/contract";
import { openSandbox } from "../open-sandbox.ts";
import { downloadPath, downloadTo } from "./download.ts";
import type { Meter } from "./meter.ts";
import { describePlace, type Place } from "./place.ts";
import { SandboxSide } from "./sandbox-side.ts";
import { uploadPath, uploadStream } from "./upload.ts";

export interface CopyOptions {
  user: string | undefined;
  signal: AbortSignal;
  meter: Meter;
  stdin: () => AsyncIterable<Uint8Array>;
  stdout: (bytes: Uint8Array) => Promise<void>;
}

/**
 * Resolves with where what was copied is now.
 * @throws WrennError `local_file_failed` for what goes wrong here; those of the sandbox's files
 */
export async function copyBetween(source: Place, destination: Place, options: CopyOptions): Promise<Place> {
  try {
    if (destination.kind === "sandbox" && source.kind !== "sandbox") {
      return await upload(source, destination, options);
    }
    if (source.kind === "sandbox" && destination.kind !== "sandbox") {
      return await download(source, destination, options);
    }
  } catch (error) {
    throw localFailure(error);
  }
  const [from, to] = [describePlace(source), describePlace(destination)];
  throw new WrennError("invalid_request", {
    message: source.kind === "sandbox" ? "Both ends are in sandboxes." : "Neither end is in a sandbox.",
    suggestion:
      source.kind === "sandbox"
        ? `Copy it by way of here: wrenn cp ${from} - | wrenn cp - ${to}.`
        : "Name one as sandbox:path; a file here whose name has a colon in it as ./name.",
  });
}

type SandboxPlace = Extract<Place, { kind: "sandbox" }>;
type PlaceHere = Exclude<Place, SandboxPlace>;

async function upload(source: PlaceHere, destination: SandboxPlace, options: CopyOptions): Promise<Place> {
  const { signal, meter, stdin } = options;
  const sandbox = await openSandbox(destination.sandbox, { signal });
  const to = new SandboxSide(sandbox, options);
  const path =
    source.kind === "stream"
      ? await uploadStream(stdin(), to, destination.path, meter)
      : await uploadPath(source.path, to, destination.path, meter);
  return { kind: "sandbox", sandbox: sandbox.id, path };
}

async function download(source: SandboxPlace, destination: PlaceHere, options: CopyOptions): Promise<Place> {
  const { signal, meter, stdout } = options;
  const from = new SandboxSide(await openSandbox(source.sandbox, { signal }), options);
  if (destination.kind === "local") {
    return { kind: "local", path: await downloadPath(from, source.path, destination.path, meter) };
  }
  await downloadTo(from, source.path, stdout, meter);
  return destination;
}

/** What the system says of files here, as an error with a code. */
function localFailure(error: unknown): unknown {
  if (!(error instanceof Error && "syscall" in error)) return error;
  return new WrennError("local_file_failed", { message: `${error.message}.`, cause: error });
}
