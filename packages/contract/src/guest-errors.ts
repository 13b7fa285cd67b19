/** What failures of a guest agent's calls mean, for all its clients. */
import { Code, ConnectError } from "@connectrpc/connect";
import { type ErrorCode, errorRegistry, WrennError } from "./errors.ts";

/** What its codes mean to a call, where that differs from what they mean in general. */
export type GuestErrorMeanings = Partial<Record<Code, ErrorCode>>;

const inGeneral: GuestErrorMeanings = {
  [Code.InvalidArgument]: "guest_refused",
  [Code.Unauthenticated]: "guest_refused",
  [Code.PermissionDenied]: "guest_refused",
  [Code.FailedPrecondition]: "guest_refused",
  [Code.NotFound]: "process_not_found",
  [Code.Unavailable]: "connection_lost",
};

/** For the start of a command. */
export const startErrors: GuestErrorMeanings = {
  [Code.NotFound]: "command_not_found",
  [Code.PermissionDenied]: "command_not_executable",
};

/** For calls of `filesystem.Filesystem`. */
export const filesystemErrors: GuestErrorMeanings = {
  [Code.NotFound]: "file_not_found",
  [Code.AlreadyExists]: "file_exists",
  [Code.PermissionDenied]: "file_access_denied",
  [Code.InvalidArgument]: "wrong_file_type",
  [Code.ResourceExhausted]: "guest_out_of_disk",
};

/**
 * A failed call of the guest agent as a WrennError. An error that Wrenn itself answered on the way is kept as it is.
 * @param specific what codes mean to this call in particular
 */
export function errorFromGuest(thrown: unknown, specific: GuestErrorMeanings = {}): WrennError {
  const known = findWrennError(thrown);
  if (known !== null) return known;
  if (thrown instanceof ConnectError) {
    const code = specific[thrown.code] ?? inGeneral[thrown.code] ?? "internal";
    return new WrennError(code, { message: thrown.rawMessage || errorRegistry[code].message, cause: thrown });
  }
  return new WrennError("connection_lost", { cause: thrown });
}

/** The WrennError that `fetch` threw, out of what the RPC library wrapped it in. */
function findWrennError(thrown: unknown): WrennError | null {
  for (let at = thrown; at instanceof Error; at = at.cause) {
    if (at instanceof WrennError) return at;
  }
  return null;
}
