/** What has to be there before anything of the server can be started. */
import { chmod, stat } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { type Layout, makeDirectory, socketPathsFit } from "@wrenn/system";

/** @throws WrennError `root_required`, or `invalid_request` for a WRENN_DIR whose path is too long. */
export async function prepareDirectories(layout: Layout): Promise<void> {
  if (process.getuid?.() !== 0) throw new WrennError("root_required");
  if (!socketPathsFit(layout)) {
    throw new WrennError("invalid_request", {
      message: `WRENN_DIR, ${layout.root}, is too long a path: a socket below it would exceed what Linux allows.`,
      suggestion: "Choose a shorter one.",
    });
  }
  await makeDirectory(layout.root, 0o711);
  // Engines and PostgreSQL run as users of their own, which have to pass through but not to look around.
  const { mode } = await stat(layout.root);
  if ((mode & 0o111) !== 0o111) await chmod(layout.root, mode | 0o111);
  await makeDirectory(layout.run, 0o711);
  await makeDirectory(layout.logs, 0o750);
}
