/** Files of the server that only root may look at: keys, sandboxes, and who its processes are. */
import { WrennError } from "@wrenn/contract";
import { hasErrno, readJson } from "@wrenn/system";

/** @throws WrennError `root_required` where the kernel does not allow it */
export async function asRoot<Value>(look: () => Promise<Value>): Promise<Value> {
  try {
    return await look();
  } catch (cause) {
    if (hasErrno(cause, "EACCES") || hasErrno(cause, "EPERM")) throw new WrennError("root_required", { cause });
    throw cause;
  }
}

/** As `readJson`, `asRoot`. */
export async function readPrivateJson(file: string): Promise<unknown> {
  return asRoot(() => readJson(file));
}
