/** Bytes of files into and out of a sandbox, whole or as an archive: streamed between a caller and the guest agent. */
import type { Readable } from "node:stream";
import { deadlines, errorFromGuest, fileHttpError, WrennError } from "@wrenn/contract";
import type { ErrorCode, FileEntry, PathQuery } from "@wrenn/contract";
import { errors as undiciErrors } from "undici";
import type { Dispatcher } from "undici";
import { z } from "zod";
import { findFile, statFile } from "./files.ts";
import type { Guest, GuestRequest } from "./guests.ts";

const endpoints = { file: "/files", archive: "/files/archive" } as const;

/** What is read of an answer that is to be understood, not passed on. The guest may be anybody's. */
const maxAnswerBytes = 65_536;
const failureSchema = z.object({ message: z.string() });
const writtenSchema = z.tuple([z.object({ path: z.string() })]);

/** What the guest agent answers: a status that is a success, and what is to be passed on to the caller. */
export interface FileContent {
  readonly status: number;
  readonly headers: Dispatcher.ResponseData["headers"];
  readonly body: Readable;
}

export interface ReadOptions {
  readonly method: "GET" | "HEAD";
  /** Ranges and conditions, as the caller gave them. */
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/**
 * The file, or a part of it, or that it has not changed.
 * @throws WrennError `range_not_satisfiable` with the file's `size` in its details, and what else the guest agent refuses
 */
export async function readFile(guest: Guest, query: PathQuery, options: ReadOptions): Promise<FileContent> {
  const { statusCode, headers, body } = await ask(guest, endpoints.file, query, options);
  if (statusCode === 416) {
    await readSmall(body);
    const size = /^bytes \*\/(\d{1,20})$/.exec(String(headers["content-range"]))?.[1];
    throw new WrennError("range_not_satisfiable", size === undefined ? {} : { details: { size: Number(size) } });
  }
  if (statusCode >= 400) throw await refusal(statusCode, body);
  return { status: statusCode, headers, body };
}

export interface Upload {
  /** Null for none at all. */
  readonly body: Readable | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
}

/** The file appears at its path, or replaces what is there, once all of it has arrived. */
export async function writeFile(
  guest: Guest,
  query: PathQuery,
  upload: Upload,
): Promise<{ readonly entry: FileEntry; readonly isNew: boolean }> {
  const before = await findFile(guest, query);
  if (before?.type === "directory" || before?.type === "other") {
    throw new WrennError("wrong_file_type", { message: `What is at ${before.path} is not a file.` });
  }
  const headers = { ...upload.headers, "content-type": "application/octet-stream" };
  // The path has been looked at, so what is refused now is the body.
  const answer = await send(guest, endpoints.file, query, { ...upload, headers }, "guest_refused");
  const [{ path }] = writtenSchema.parse(answer);
  return {
    entry: await statFile(guest, { path, user: query.user }),
    isNew: before === null || before.type === "symlink",
  };
}

/** A tar archive of a directory, or of one file. */
export async function readArchive(guest: Guest, query: PathQuery, signal: AbortSignal): Promise<FileContent> {
  const { statusCode, headers, body } = await ask(guest, endpoints.archive, query, { method: "GET", signal });
  if (statusCode >= 400) throw await refusal(statusCode, body);
  return { status: statusCode, headers, body };
}

/** Makes the directory if it is missing, and puts into it what the archive holds. */
export async function extractArchive(guest: Guest, query: PathQuery, upload: Upload): Promise<FileEntry> {
  const before = await findFile(guest, query);
  if (before !== null && before.type !== "directory") {
    throw new WrennError("wrong_file_type", { message: `What is at ${before.path} is not a directory.` });
  }
  const headers = { ...upload.headers, "content-type": "application/x-tar" };
  await send(guest, endpoints.archive, query, { ...upload, headers }, "invalid_archive");
  return statFile(guest, query);
}

/** The guest agent's answer to an upload that it took. */
async function send(
  guest: Guest,
  endpoint: string,
  query: PathQuery,
  upload: Upload,
  badRequest: ErrorCode,
): Promise<unknown> {
  // Undici counts from the last byte sent, and a caller may pause for as long as `uploadIdle`.
  const headersTimeout = deadlines.uploadIdle + deadlines.guestFiles;
  const { statusCode, body } = await ask(guest, endpoint, query, { ...upload, method: "POST", headersTimeout });
  if (statusCode >= 400) throw await refusal(statusCode, body, badRequest);
  return parsedJson(await readSmall(body));
}

async function ask(
  guest: Guest,
  endpoint: string,
  { path, user }: PathQuery,
  request: GuestRequest,
): Promise<Dispatcher.ResponseData> {
  const parameters = new URLSearchParams({ path, ...(user === undefined ? {} : { username: user }) });
  const limits = { headersTimeout: deadlines.guestFiles, bodyTimeout: deadlines.guestFiles };
  try {
    const answer = await guest.request(`${endpoint}?${parameters.toString()}`, { ...limits, ...request });
    // Who reads the body is told as well; that nobody does any more is no error.
    answer.body.on("error", () => undefined);
    return answer;
  } catch (error) {
    throw transferError(error);
  }
}

/** Whether it is undici's or the system's, of a connection that broke. */
export function isTransferFailure(error: unknown): error is Error {
  return error instanceof undiciErrors.UndiciError || (error instanceof Error && "syscall" in error);
}

/** What breaks off a transfer, before the answer or in the middle of it. */
export function transferError(error: unknown): WrennError {
  const late = error instanceof undiciErrors.HeadersTimeoutError || error instanceof undiciErrors.BodyTimeoutError;
  return late ? new WrennError("guest_timeout", { cause: error }) : errorFromGuest(error);
}

async function refusal(status: number, body: Readable, badRequest?: ErrorCode): Promise<WrennError> {
  const failure = failureSchema.safeParse(parsedJson(await readSmall(body)));
  return fileHttpError(status, failure.data?.message ?? "", badRequest);
}

async function readSmall(body: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxAnswerBytes) break;
      chunks.push(chunk);
    }
  } catch (error) {
    throw transferError(error);
  }
  return Buffer.concat(chunks).toString();
}

function parsedJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
