/** How a WrennError travels in the error details of the host agent's RPC, whatever carries them. */
import type { ErrorInfo } from "./gen/host_agent_pb.ts";
import { errorRegistry, isErrorCode, WrennError } from "./errors.ts";

export interface ErrorInfoFields {
  code: string;
  message: string;
  suggestion: string;
  detailsJson: string;
}

export function toErrorInfo(error: WrennError): ErrorInfoFields {
  return {
    code: error.code,
    message: error.message,
    suggestion: error.suggestion,
    detailsJson: error.details === undefined ? "" : JSON.stringify(error.details),
  };
}

/** The error as it was thrown on the other side. A code this side does not know becomes `internal`. */
export function fromErrorInfo(info: ErrorInfo, cause: unknown): WrennError {
  const code = isErrorCode(info.code) ? info.code : "internal";
  return new WrennError(code, {
    message: info.message || errorRegistry[code].message,
    ...(info.suggestion === "" ? {} : { suggestion: info.suggestion }),
    ...(info.detailsJson === "" ? {} : { details: JSON.parse(info.detailsJson) as Record<string, unknown> }),
    cause,
  });
}
