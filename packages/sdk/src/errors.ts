/** Failures as a server or a guest agent reports them, made into WrennErrors. */
import { Code, ConnectError } from "@connectrpc/connect";
import { type ErrorCode, errorRegistry, isErrorCode, WrennError } from "@wrenn/contract";
import { z } from "zod";

const errorBodySchema = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    details: z.record(z.string(), z.unknown()).optional(),
    suggestion: z.string().optional(),
    request_id: z.string().optional(),
  }),
});

/** How much of an answer that is no error body of ours is worth showing. */
const excerptLength = 200;

/** The error in the body of a failed request. A code this client does not know stays readable in message and details. */
export async function errorFromResponse(response: Response): Promise<WrennError> {
  const text = await response.text();
  const error = parseErrorBody(text);
  if (error !== null) return error;
  return new WrennError(response.status === 502 || response.status === 503 ? "server_unreachable" : "internal", {
    message: `The server answered ${response.status} without an error of its own: ${text.slice(0, excerptLength)}`,
    details: { status: response.status },
  });
}

export function parseErrorBody(text: string): WrennError | null {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return null;
  }
  const parsed = errorBodySchema.safeParse(body);
  if (!parsed.success) return null;
  const { code, message, details, suggestion, request_id } = parsed.data.error;
  const known = isErrorCode(code);
  return new WrennError(known ? code : "internal", {
    message: known ? message : `${message} (${code})`,
    ...(suggestion === undefined ? {} : { suggestion }),
    details: {
      ...details,
      ...(known ? {} : { code }),
      ...(request_id === undefined ? {} : { request_id }),
    },
  });
}

/** What a failed call of the guest agent means, for calls where its codes have no more specific meaning. */
const guestErrors: Partial<Record<Code, ErrorCode>> = {
  [Code.InvalidArgument]: "guest_refused",
  [Code.Unauthenticated]: "guest_refused",
  [Code.PermissionDenied]: "guest_refused",
  [Code.FailedPrecondition]: "guest_refused",
  [Code.NotFound]: "process_not_found",
  [Code.Unavailable]: "connection_lost",
};

/**
 * A failed call of the guest agent as a WrennError. An error that Wrenn itself answered on the way is kept as it is.
 * `specific` says what codes mean to this call in particular.
 */
export function errorFromGuest(thrown: unknown, specific: Partial<Record<Code, ErrorCode>> = {}): WrennError {
  const known = findWrennError(thrown);
  if (known !== null) return known;
  if (thrown instanceof ConnectError) {
    const code = specific[thrown.code] ?? guestErrors[thrown.code] ?? "internal";
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
