/** Failures as this SDK throws them: WrennErrors, with a class for each kind that a program may want to tell apart. */
import {
  errorBodySchema,
  type ErrorCode,
  errorRegistry,
  isErrorCode,
  WrennError,
  type WrennErrorOptions,
} from "@wrenn/contract";

/** The request itself is wrong: sending it again is pointless. */
export class InvalidRequestError extends WrennError {
  override readonly name = "InvalidRequestError";
}

/** There is no API key, or it is unknown or revoked. */
export class AuthenticationError extends WrennError {
  override readonly name = "AuthenticationError";
}

/** There is no such sandbox, or it has been destroyed. */
export class SandboxNotFoundError extends WrennError {
  override readonly name = "SandboxNotFoundError";
}

/** The team has no snapshot of that name. */
export class SnapshotNotFoundError extends WrennError {
  override readonly name = "SnapshotNotFoundError";
}

/** The sandbox is in a state, or busy with something, that does not allow this now. */
export class ConflictError extends WrennError {
  override readonly name = "ConflictError";
}

/** No host has room. */
export class CapacityError extends WrennError {
  override readonly name = "CapacityError";
}

/** Something was not answered in time. */
export class TimeoutError extends WrennError {
  override readonly name = "TimeoutError";
}

/** The server, or the sandbox behind it, could not be reached, or the connection broke. */
export class ConnectionError extends WrennError {
  override readonly name = "ConnectionError";
}

/** A command could not be started, or is not there. */
export class CommandError extends WrennError {
  override readonly name = "CommandError";
}

/** A file is not there, is there already, is of another type, …: see `code`. */
export class FileError extends WrennError {
  override readonly name = "FileError";
}

/** The sandbox's own failure: its kernel panicked, its VM died, its memory ran out, … */
export class GuestError extends WrennError {
  override readonly name = "GuestError";
}

type ErrorClass = new (code: ErrorCode, options?: WrennErrorOptions) => WrennError;

/** What a status says by itself, also of codes that are newer than this client's list. */
const classOfStatus: Readonly<Record<number, ErrorClass>> = {
  400: InvalidRequestError,
  401: AuthenticationError,
  408: TimeoutError,
  409: ConflictError,
  413: InvalidRequestError,
  415: InvalidRequestError,
  431: InvalidRequestError,
  504: TimeoutError,
};

/** Where the code says more than the status does. */
const families: readonly (readonly [ErrorClass, readonly ErrorCode[]])[] = [
  [InvalidRequestError, ["template_not_found"]],
  [SandboxNotFoundError, ["sandbox_not_found"]],
  [SnapshotNotFoundError, ["snapshot_not_found"]],
  [CapacityError, ["no_capacity", "host_out_of_memory", "host_out_of_disk"]],
  [
    ConnectionError,
    ["server_unreachable", "connection_lost", "host_unavailable", "database_unavailable", "shutting_down"],
  ],
  [CommandError, ["command_not_found", "command_not_executable", "process_not_found"]],
  [
    FileError,
    [
      "file_not_found",
      "file_exists",
      "file_access_denied",
      "wrong_file_type",
      "guest_out_of_disk",
      "invalid_archive",
      "range_not_satisfiable",
      "watch_overflow",
    ],
  ],
  [
    GuestError,
    [
      "guest_panicked",
      "guest_out_of_memory",
      "guest_powered_off",
      "guest_init_failed",
      "guest_refused",
      "vm_died",
      "sandbox_died",
      "memory_unreadable",
      "disk_failed",
      "port_closed",
      "create_interrupted",
    ],
  ],
];

const classOfCode: ReadonlyMap<ErrorCode, ErrorClass> = new Map(
  families.flatMap(([errorClass, codes]) => codes.map((code) => [code, errorClass] as const)),
);

function classOf(code: ErrorCode): ErrorClass {
  return classOfCode.get(code) ?? classOfStatus[errorRegistry[code].status] ?? WrennError;
}

/** An error of the class that its code belongs to. */
export function failure(code: ErrorCode, options: WrennErrorOptions = {}): WrennError {
  return new (classOf(code))(code, options);
}

/** The same error in the class that its code belongs to. */
export function classified(error: WrennError): WrennError {
  if (error.constructor !== WrennError) return error;
  const { message, suggestion, details, requestId, cause } = error;
  return failure(error.code, { message, suggestion, details, requestId, cause });
}

/** How much of an answer that is no error body of ours is worth showing. */
const excerptLength = 200;

/** The error in the body of a failed request. A code this client does not know stays readable in message and details. */
export async function errorFromResponse(response: Response): Promise<WrennError> {
  const text = await response.text();
  const error = parseErrorBody(text);
  if (error !== null) return error;
  return failure(response.status === 502 || response.status === 503 ? "server_unreachable" : "internal", {
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
  const { code, message, details, suggestion, request_id: requestId } = parsed.data.error;
  if (isErrorCode(code)) return failure(code, { message, suggestion, details, requestId });
  return new WrennError("internal", {
    message: `${message} (${code})`,
    suggestion,
    details: { ...details, code },
    requestId,
  });
}
