/** From here into a sandbox. What is copied is first put beside its place, and moved there once it is whole. */
import { readdir, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { say } from "../terminal/messages.ts";
import type { Meter } from "./meter.ts";
import type { SandboxSide } from "./sandbox-side.ts";
import { pack } from "./tar.ts";
import { chooseTarget, endsAsDirectory, meansContents } from "./target.ts";

/** Resolves with the path it has in the sandbox. */
export async function uploadPath(given: string, to: SandboxSide, destination: string, meter: Meter): Promise<string> {
  const stats = await stat(given);
  const isDirectory = stats.isDirectory();
  if (!isDirectory && !stats.isFile()) {
    throw new WrennError("wrong_file_type", {
      message: `${given} is neither a file nor a directory.`,
      suggestion: "To copy what it gives, hand it to standard input: wrenn cp - sandbox:path.",
    });
  }
  if (!isDirectory) {
    if (endsAsDirectory(given)) throw new WrennError("wrong_file_type", { message: `${given} is no directory.` });
    meter.totalBytes = stats.size;
  }
  const source = { isDirectory, name: path.basename(path.resolve(given)), contentsOnly: meansContents(given) };
  const target = await chooseTarget(source, destination, to.look);
  if (target.existing === "other") {
    throw new WrennError("wrong_file_type", {
      message: `${target.path} is neither a file nor a directory, and is not replaced.`,
      suggestion: "Write to it in the sandbox: wrenn exec sandbox -- sh -c 'cat > path' < file.",
    });
  }
  // A link that is named is followed; links in a directory stay links.
  const real = await realpath(given);
  if (isDirectory && target.existing !== null) {
    // Not the directory itself, whose permissions are not those of the one that is there.
    await sendArchive(real, await readdir(real, { encoding: "buffer" }), to, target.path, meter);
  } else {
    await to.withStage(target.path, async (stage) => {
      const name = path.basename(real) || ".";
      await sendArchive(path.dirname(real), [Buffer.from(name)], to, stage, meter);
      await to.files.move(path.posix.join(stage, name), target.path, to.options);
    });
  }
  return target.path;
}

async function sendArchive(
  directory: string,
  names: readonly Buffer[],
  to: SandboxSide,
  destination: string,
  meter: Meter,
): Promise<void> {
  const archive = pack(directory, names);
  try {
    await to.files.writeArchive(destination, ReadableStream.from(meter.count(archive.pieces)), to.options);
    const remarks = await archive.finish();
    if (remarks !== "") say(remarks);
  } finally {
    archive.abandon();
  }
}

/** What comes on a stream becomes a file, once the stream has ended. */
export async function uploadStream(
  pieces: AsyncIterable<Uint8Array>,
  to: SandboxSide,
  destination: string,
  meter: Meter,
): Promise<string> {
  const target = await chooseTarget({ isDirectory: false, name: "", contentsOnly: false }, destination, to.look);
  await to.files.write(target.path, ReadableStream.from(meter.count(pieces)), to.options);
  return target.path;
}
