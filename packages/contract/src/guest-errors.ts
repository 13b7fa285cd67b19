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
  [Code.DeadlineExceeded]: "guest_timeout",
  [Code.DataLoss]: "connection_lost",
};

/** For the start of a command. */
export const startErrors: GuestErrorMeanings = {
  [Code.NotFound]: "command_not_found",
  [Code.PermissionDenied]: "command_not_executable",
  [Code.AlreadyExists]: "process_tag_taken",
};

/** For following a command: the agent gives up a reader that takes nothing for half a minute while others wait. */
export const followErrors: GuestErrorMeanings = { [Code.ResourceExhausted]: "connection_lost" };

/** For calls of `filesystem.Filesystem`. */
export const filesystemErrors: GuestErrorMeanings = {
  [Code.NotFound]: "file_not_found",
  [Code.AlreadyExists]: "file_exists",
  [Code.PermissionDenied]: "file_access_denied",
  [Code.InvalidArgument]: "wrong_file_type",
  [Code.ResourceExhausted]: "guest_out_of_disk",
  [Code.DeadlineExceeded]: "guest_timeout",
};

/** What refusals of the guest agent's `/files` and `/files/archive` mean. */
const fileHttpErrors: Readonly<Record<number, ErrorCode>> = {
  400: "wrong_file_type",
  // The server's token is right, so it is the user that there is not.
  401: "guest_refused",
  403: "file_access_denied",
  404: "file_not_found",
  406: "guest_refused",
  409: "file_exists",
  416: "range_not_satisfiable",
  507: "guest_out_of_disk",
};

/**
 * A refusal of the guest agent's HTTP endpoints for files as a WrennError.
 * @param badRequest what 400 means to this request in particular
 */
export function fileHttpError(status: number, message: string, badRequest: ErrorCode = "wrong_file_type"): WrennError {
  const code = status === 400 ? badRequest : (fileHttpErrors[status] ?? "internal");
  return new WrennError(code, { message: message || errorRegistry[code].message });
}

/**
 * A failed call of the guest agent as a WrennError. An error that Wrenn itself answered on the way is kept as it is.
 * @param specific what codes mean to this call in particular
 */
export function errorFromGuest(thrown: unknown, specific: GuestErrorMeanings = {}): WrennError {
  const known = findWrennError(thrown);
  if (known !== null) return known;
  // A cause is a failure on this side or on the way: what the agent itself answers has none.
  if (thrown instanceof ConnectError && thrown.cause === undefined) {
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
