/** Files of the server that only root may read: keys, and who its processes are. */
import { WrennError } from "@wrenn/contract";
import { hasErrno, readJson } from "@wrenn/system";

/**
 * As `readJson`.
 * @throws WrennError `root_required`
 */
export async function readPrivateJson(file: string): Promise<unknown> {
  try {
    return await readJson(file);
  } catch (cause) {
    if (hasErrno(cause, "EACCES") || hasErrno(cause, "EPERM")) throw new WrennError("root_required", { cause });
    throw cause;
  }
}
