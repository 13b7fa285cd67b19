/** A full disk of the host, by whichever step it was met, is an error of its own. */
import { WrennError } from "@wrenn/contract";
import { hasErrno } from "@wrenn/system";

export function asDiskError(error: unknown): unknown {
  return hasErrno(error, "ENOSPC") ? new WrennError("host_out_of_disk", { cause: error }) : error;
}
