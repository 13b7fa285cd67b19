/** Files on their way to and from a sandbox, streamed: never more in memory than a piece. */
import type { ErrorCode } from "@wrenn/contract";
import { z } from "zod";
import { blobOf, type BodySource, isStream } from "./bodies.ts";
import { CallSignal } from "./call-signal.ts";
import { failure } from "./errors.ts";
import type { FileOptions } from "./files.ts";
import type { GuestConnection } from "./guest-connection.ts";

/** Bytes of a file: from `start`, up to but not including `end`. Without an end, to the end of the file. */
export interface ByteRange {
  start: number;
  end?: number | undefined;
}

export type TransferPath = "/files" | "/files/archive";

/** The body of a successful GET. Reading it slowly slows the sandbox down; cancelling it ends the transfer. */
export async function download(
  guest: GuestConnection,
  from: TransferPath,
  path: string,
  options: FileOptions & { range?: ByteRange | undefined },
): Promise<ReadableStream<Uint8Array>> {
  const call = transferCall(guest, options, `reading ${path}`);
  try {
    call.signal.throwIfAborted();
    const headers: Record<string, string> = options.range === undefined ? {} : { range: rangeHeader(options.range) };
    const response = await guest.fetch(target(from, path, options.user), { method: "GET", headers }, call);
    if (!response.ok) throw await transferFailure(response);
    return watched(response.body ?? new Blob([]).stream(), call, guest);
  } catch (error) {
    call.release();
    throw call.explain(error);
  }
}

/** Sends the source as the body of a POST, and resolves once the guest has stored all of it. */
export async function upload(
  guest: GuestConnection,
  to: TransferPath,
  path: string,
  source: BodySource,
  options: FileOptions & { contentType: string },
): Promise<void> {
  const call = transferCall(guest, options, `writing ${path}`);
  try {
    call.signal.throwIfAborted();
    const body = await requestBody(source, call);
    const headers = { "content-type": options.contentType };
    const response = await guest.fetch(target(to, path, options.user), { method: "POST", headers, ...body }, call);
    if (!response.ok) throw await transferFailure(response);
    // Read to its end, the answer leaves a connection that can be used again.
    await response.arrayBuffer();
  } catch (error) {
    throw call.explain(error);
  } finally {
    call.release();
    // One that was not read to its end must not wait for that for ever.
    if (isStream(source) && !source.locked) source.cancel(call.signal.reason).catch(() => undefined);
  }
}

/** Each answer, and each piece of a body, has the whole of the time that a request may take. */
function transferCall(guest: GuestConnection, options: FileOptions, what: string): CallSignal {
  return new CallSignal({ signal: options.signal, timeoutMs: guest.connection.timeoutMs(options), what });
}

function target(from: TransferPath, path: string, user: string | undefined): string {
  const query = new URLSearchParams({ path });
  if (user !== undefined) query.set("username", user);
  return `${from}?${query.toString()}`;
}

function rangeHeader({ start, end }: ByteRange): string {
  const valid = Number.isSafeInteger(start) && start >= 0;
  if (!valid || (end !== undefined && !(Number.isSafeInteger(end) && end > start))) {
    throw failure("invalid_request", { message: "A range is 0 ≤ start < end, in whole bytes." });
  }
  return `bytes=${start}-${end === undefined ? "" : end - 1}`;
}

/** The same bytes, asked for one piece at a time; a piece that does not come in time is an error. */
function watched(
  body: ReadableStream<Uint8Array>,
  call: CallSignal,
  guest: GuestConnection,
): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  call.lift();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        call.restart();
        try {
          const { done, value } = await reader.read();
          if (done) {
            call.release();
            controller.close();
          } else {
            // How long the next piece is waited for begins when it is asked for.
            call.lift();
            controller.enqueue(value);
          }
        } catch (error) {
          call.release();
          throw call.explain(brokenOff(error, guest));
        }
      },
      async cancel(reason) {
        call.release();
        await reader.cancel(reason);
      },
    },
    // Nothing is read before it is asked for.
    { highWaterMark: 0 },
  );
}

function brokenOff(error: unknown, guest: GuestConnection): unknown {
  if (!(error instanceof TypeError)) return error;
  const message = `The connection to ${guest.connection.url} broke before the file had been read to its end.`;
  return failure("connection_lost", { message, cause: error });
}

/** Bodies in memory up to this size are sent at once, so that how far they are need not be known. */
const smallBodyBytes = 1_048_576;

async function requestBody(
  source: BodySource,
  call: CallSignal,
): Promise<{ body: Blob | ReadableStream<Uint8Array>; duplex?: "half" }> {
  if (!isStream(source)) {
    const blob = blobOf(source);
    if (blob.size <= smallBodyBytes || !streamsRequests()) return whole(blob, call);
    return { body: counted(blob.stream(), call), duplex: "half" };
  }
  if (streamsRequests()) return { body: counted(source, call), duplex: "half" };
  // Browsers without request streams: the browser keeps a blob where it likes, on disk if need be.
  return whole(await new Response(source).blob(), call);
}

/** How far a body is that is sent as one cannot be seen: its time is not bounded. */
function whole(blob: Blob, call: CallSignal): { body: Blob } {
  if (blob.size > smallBodyBytes) call.lift();
  return { body: blob };
}

/** The same bytes; each piece that is taken begins the call's time anew. */
function counted(source: ReadableStream<Uint8Array>, call: CallSignal): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        // The source may take its time.
        call.lift();
        const { done, value } = await reader.read();
        call.restart();
        if (done) controller.close();
        else controller.enqueue(value);
      },
      async cancel(reason) {
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
}

let streamingKnown: boolean | undefined;

/** Whether `fetch` takes streams as bodies: it then asks for `duplex`, and sets no content type of its own. */
function streamsRequests(): boolean {
  streamingKnown ??= detectStreaming();
  return streamingKnown;
}

function detectStreaming(): boolean {
  let duplexAsked = false;
  const init = {
    method: "POST",
    body: new ReadableStream(),
    get duplex() {
      duplexAsked = true;
      return "half" as const;
    },
  };
  const { headers } = new Request("http://localhost/", init);
  return duplexAsked && !headers.has("content-type");
}

const refusalSchema = z.object({ message: z.string() });

const codesByStatus: Readonly<Record<number, ErrorCode>> = {
  400: "wrong_file_type",
  401: "guest_refused",
  403: "file_access_denied",
  404: "file_not_found",
  409: "file_exists",
  416: "range_not_satisfiable",
  507: "guest_out_of_disk",
};

async function transferFailure(response: Response): Promise<Error> {
  const text = await response.text();
  const code = codesByStatus[response.status] ?? "internal";
  return failure(code, { message: messageOf(text), details: { status: response.status } });
}

function messageOf(text: string): string | undefined {
  try {
    return refusalSchema.parse(JSON.parse(text)).message;
  } catch {
    return undefined;
  }
}
