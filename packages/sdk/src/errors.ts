/** Failures as a server reports them, made into WrennErrors. */
import { errorBodySchema, isErrorCode, WrennError } from "@wrenn/contract";

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
