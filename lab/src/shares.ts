/**
 * The host's files that a run sees, as images of file systems: the project, its packages, and what set-up has installed. The VM may write to
 * all of them, and what it writes is gone with it. An image of what seldom changes is kept, under a name made of the names, sizes and times of
 * all its files.
 */
import { type FileHandle, mkdir, open, rename, stat, utimes } from "node:fs/promises";
import path from "node:path";
import { contentName, freshScratch, removeTree } from "@wrenn/images";
import { isMissingFile, type Layout, run } from "@wrenn/system";
import { fileSystemArguments, removeUnused } from "./image.ts";
import { labDirectory } from "./paths.ts";

/** What a disk shows: a folder, or null for an empty one, with other folders and files put into it or hidden. */
export interface Content {
  readonly folder: string | null;
  readonly insets: readonly Inset[];
}

/** `from` null hides what is there. */
export interface Inset {
  readonly from: string | null;
  readonly at: string;
}

/** What is left out: packages have a disk of their own; what tools note down beside packages would make it another at each run. */
export const leftOut = {
  project: ["node_modules", "native/target", ".git"],
  packages: [".vite", ".vite-temp", ".wrenn"],
} as const;

/** Apparent size of an image: room for what a command writes there. */
const size = "12G";

/** Runs in a mount namespace of its own, which ends with it; so nothing is copied, and nothing stays mounted. */
const imageScript = `
folder=$1 empty=$2 insets=$3
shift 3
if [ "$empty" = yes ]; then mount -t tmpfs parts "$folder"; fi
while [ "$insets" -gt 0 ]; do
  if [ -z "$1" ]; then
    mount -t tmpfs hidden "$folder/$2"
  else
    if [ -d "$1" ]; then mkdir -p "$folder/$2"; else mkdir -p "$(dirname "$folder/$2")" && : >"$folder/$2"; fi
    mount --bind "$1" "$folder/$2"
  fi
  shift 2
  insets=$((insets - 1))
done
exec "$@"
`;

/** What a folder shows without these folders, as far as it has them. */
export async function folderWithout(folder: string, names: readonly string[]): Promise<Content> {
  const insets: Inset[] = [];
  for (const at of names) {
    const found = await stat(path.join(folder, at)).catch((error: unknown) => {
      if (isMissingFile(error)) return null;
      throw error;
    });
    if (found?.isDirectory() === true) insets.push({ from: null, at });
  }
  return { folder, insets };
}

/** An image for one run, which nothing but its descriptor leads to. */
export async function shareOnce(layout: Layout, content: Content, signal: AbortSignal): Promise<FileHandle> {
  return inScratch(layout, async (scratch) => open(await makeImage(scratch, content, signal), "r+"));
}

/** An image that is kept for other runs with the same content. */
export async function shareKept(
  layout: Layout,
  disk: string,
  content: Content,
  signal: AbortSignal,
): Promise<FileHandle> {
  const name = contentName([content, await listing(content, signal)]);
  const file = path.join(labDirectory(layout), `${disk}-${name}.ext4`);
  const there = await openIfThere(file);
  if (there !== null) return there;
  await inScratch(layout, async (scratch) => rename(await makeImage(scratch, content, signal), file));
  await removeUnused(labDirectory(layout));
  return open(file, "r");
}

async function openIfThere(file: string): Promise<FileHandle | null> {
  try {
    const now = new Date();
    await utimes(file, now, now);
    return await open(file, "r");
  } catch (error) {
    if (isMissingFile(error)) return null;
    throw error;
  }
}

async function inScratch<Result>(layout: Layout, work: (scratch: string) => Promise<Result>): Promise<Result> {
  const scratch = path.join(labDirectory(layout), `.building-share-${process.pid}`);
  await freshScratch(scratch);
  try {
    return await work(scratch);
  } finally {
    await removeTree(scratch);
  }
}

async function makeImage(scratch: string, { folder, insets }: Content, signal: AbortSignal): Promise<string> {
  const image = path.join(scratch, "image");
  const parts = path.join(scratch, "parts");
  await mkdir(parts);
  const source = folder ?? parts;
  const mounts = insets.flatMap(({ from, at }) => [from ?? "", at]);
  const program = ["mke2fs", ...fileSystemArguments, "-d", source, image, size];
  const script = [imageScript, "sh", source, folder === null ? "yes" : "no", String(insets.length), ...mounts];
  await run("unshare", ["--mount", "--propagation", "private", "sh", "-euc", ...script, ...program], { signal });
  return image;
}

/** Names, kinds, permissions, owners, sizes and times of everything that the image shows. */
async function listing({ folder, insets }: Content, signal: AbortSignal): Promise<string[]> {
  const places = insets.flatMap(({ from }) => from ?? []);
  if (folder !== null) places.push(folder);
  const hidden = insets.flatMap(({ from, at }) =>
    from === null ? ["-path", path.join(folder ?? "", at), "-prune", "-o"] : [],
  );
  const { stdout } = await run("find", [...places, ...hidden, "-printf", "%p %y %m %U %s %T@ %l\\n"], { signal });
  return stdout.split("\n").toSorted();
}
