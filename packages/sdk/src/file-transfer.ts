/** Files on their way to and from a sandbox, streamed: never more in memory than a piece. */
import { type ErrorCode, fileHttpError, WrennError } from "@wrenn/contract";
import { z } from "zod";
import { blobOf, type BodySource, isStream, sendsStreams, streamOf } from "./bodies.ts";
import { CallSignal, untilAborted } from "./call-signal.ts";
import { classified, failure } from "./errors.ts";
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
  options: FileOptions & { contentType: string; badRequest: ErrorCode },
): Promise<void> {
  const call = transferCall(guest, options, `writing ${path}`);
  let cancel: RequestBody["cancel"] = () => undefined;
  try {
    const { body, ...rest } = await requestBody(source, call);
    ({ cancel } = rest);
    call.signal.throwIfAborted();
    const headers = { "content-type": options.contentType };
    // Nobody redirects this; where that could be, Node keeps all of a streamed body, to be able to send it again.
    const init = { method: "POST", headers, redirect: "error", ...body } as const;
    const response = await guest.fetch(target(to, path, options.user), init, call);
    if (!response.ok) throw await transferFailure(response, options.badRequest);
    // Read to its end, the answer leaves a connection that can be used again.
    await response.arrayBuffer();
  } catch (error) {
    const failed = await transferLoss(error, guest, call);
    // Where the guest refuses what it has only seen the beginning of, the rest is not sent.
    call.abandon(failed);
    cancel(failed);
    throw failed;
  } finally {
    call.release();
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
          const failed = await transferLoss(brokenOff(error, guest), guest, call);
          call.release();
          throw failed;
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

/** What to tell of a transfer that failed. What becomes of a sandbox that is just being paused is waited for, however long. */
async function transferLoss(error: unknown, guest: GuestConnection, call: CallSignal): Promise<unknown> {
  call.lift();
  return call.explain(error instanceof WrennError ? await guest.explainLoss(error, call.signal) : error);
}

function brokenOff(error: unknown, guest: GuestConnection): unknown {
  if (!(error instanceof TypeError)) return error;
  const message = `The connection to ${guest.connection.url} broke before the file had been read to its end.`;
  return failure("connection_lost", { message, cause: error });
}

/** Bodies in memory up to this size are sent at once, so that how far they are need not be known. */
const smallBodyBytes = 1_048_576;

interface RequestBody {
  body: { body: Blob } | { body: ReadableStream<Uint8Array>; duplex: "half" };
  /** Lets go of the source, when not all of it was wanted. */
  cancel: (reason: unknown) => void;
}

async function requestBody(source: BodySource, call: CallSignal): Promise<RequestBody> {
  if (sendsStreams && (isStream(source) || blobOf(source).size > smallBodyBytes)) {
    const reader = streamOf(source).getReader();
    const cancel = (reason: unknown): void => void reader.cancel(reason).catch(() => undefined);
    return { body: { body: metered(reader, call), duplex: "half" }, cancel };
  }
  // The browser keeps a blob where it likes, on disk if need be.
  const blob = isStream(source) ? await collect(source, call) : blobOf(source);
  // How far a body is that is sent as one cannot be seen: its time is not bounded.
  if (blob.size > smallBodyBytes) call.lift();
  return { body: { body: blob }, cancel: () => undefined };
}

async function collect(source: ReadableStream<Uint8Array>, call: CallSignal): Promise<Blob> {
  call.lift();
  const blob = await untilAborted(new Response(source).blob(), call.signal);
  call.restart();
  return blob;
}

/** The same bytes; the call's time begins anew with each piece that is taken, and does not count while the source is waited for. */
function metered(reader: ReadableStreamDefaultReader<Uint8Array>, call: CallSignal): ReadableStream<Uint8Array> {
  const read = async (): ReturnType<typeof reader.read> => {
    try {
      return await reader.read();
    } catch (error) {
      // `fetch` would tell of a connection that failed.
      call.abandon(error);
      throw error;
    }
  };
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        call.lift();
        const { done, value } = await read();
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

const refusalSchema = z.object({ message: z.string() });

async function transferFailure(response: Response, badRequest?: ErrorCode): Promise<WrennError> {
  const text = await response.text();
  return classified(fileHttpError(response.status, messageOf(text), badRequest));
}

function messageOf(text: string): string {
  try {
    return refusalSchema.parse(JSON.parse(text)).message;
  } catch {
    return "";
  }
}
