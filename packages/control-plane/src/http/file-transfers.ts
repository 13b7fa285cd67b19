/** Bytes of files: `GET` and `PUT` of a file, and of a directory as a tar archive. Nothing is held back on the way but by whoever is slow. */
import type { IncomingMessage } from "node:http";
import { fileEntrySchema, pathQuerySchema, WrennError } from "@wrenn/contract";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import {
  extractArchive,
  isTransferFailure,
  readArchive,
  readFile,
  transferError,
  writeFile,
} from "../services/file-transfers.ts";
import type { FileContent, Upload } from "../services/file-transfers.ts";
import { sendError } from "./errors.ts";
import type { FileAddress } from "./files.ts";
import { fileChangeErrors, fileErrors } from "./route-errors.ts";
import { endedByClient, giveUpIdleReader } from "./streamed-answer.ts";
import { UploadBody } from "./upload-body.ts";

const tags = ["Files"];

/** What a caller may ask of a file. Not its compression, which costs a guest more than it saves. */
const passedToGuest = ["range", "if-range", "if-none-match", "if-modified-since"] as const;
/** What is believed of a guest's answer. */
const passedToCaller = ["content-length", "content-range", "accept-ranges", "etag", "last-modified"] as const;

export interface FileTransferOptions extends FileAddress {
  readonly uploadIdleMs: number;
}

export function fileTransferRoutes(options: FileTransferOptions): FastifyPluginAsyncZod {
  return async (app) => {
    app.setErrorHandler(async (error, request, reply) => {
      const size =
        error instanceof WrennError && error.code === "range_not_satisfiable" ? error.details?.["size"] : null;
      if (typeof size === "number") void reply.header("Content-Range", `bytes */${size}`);
      // The guest may break off after its head, and before the caller has been sent one.
      await sendError(isTransferFailure(error) ? transferError(error) : error, request, reply);
    });
    await app.register(downloads(options));
    await app.register(uploads(options));
  };
}

function downloads({ files, params, reach }: FileTransferOptions): FastifyPluginAsyncZod {
  return async (app) => {
    app.route({
      method: ["GET", "HEAD"],
      url: files,
      schema: {
        operationId: "readFile",
        tags,
        summary: "Read a file",
        description:
          "Its bytes, as a stream; with a `Range` a part of them. `ETag` and `Last-Modified` make it conditional.",
        params,
        querystring: pathQuerySchema,
        rawAnswers: {
          200: { type: "application/octet-stream", description: "The whole file." },
          206: { type: "application/octet-stream", description: "The part asked for, which `Content-Range` names." },
          304: { description: "It is as it was." },
        },
        errors: [...fileErrors, "range_not_satisfiable"],
      },
      handler: async (request, reply) => {
        const method = request.method === "HEAD" ? "HEAD" : "GET";
        const headers = pick(request.headers, passedToGuest);
        const signal = endedByClient(reply).signal;
        const content = await readFile(await reach(request), request.query, { method, headers, signal });
        const disposition = content.headers["content-disposition"];
        return sendContent(reply, content, {
          type: "application/octet-stream",
          // A browser would show what is inline.
          disposition: typeof disposition === "string" ? disposition.replace(/^inline\b/, "attachment") : "attachment",
        });
      },
    });

    // Nobody knows how long an archive will be before it has been made.
    const schema = {
      operationId: "readArchive",
      tags,
      summary: "Read a directory as a tar archive",
      description: "The directory with all that is in it, as a stream.",
      params,
      querystring: pathQuerySchema,
      rawAnswers: { 200: { type: "application/x-tar", description: "A tar archive, uncompressed." } },
      errors: fileErrors,
    };
    app.get(`${files}/archive`, { schema, exposeHeadRoute: false }, async (request, reply) => {
      const content = await readArchive(await reach(request), request.query, endedByClient(reply).signal);
      const disposition = `attachment; filename*=utf-8''${encodeName(archiveName(request.query.path))}`;
      return sendContent(reply, content, { type: "application/x-tar", disposition });
    });
  };
}

function uploads({ files, params, reach, uploadIdleMs }: FileTransferOptions): FastifyPluginAsyncZod {
  return async (app) => {
    const common = { tags, params, querystring: pathQuerySchema };
    const config = { bodyIsStreamed: true };

    app.addHook("onRequest", async (request) => {
      // Of no account here, and where it cannot be parsed Fastify would refuse the request.
      delete request.raw.headers["content-type"];
    });
    app.removeAllContentTypeParsers();
    app.addContentTypeParser("*", (_request, _payload, done) => {
      done(null);
    });

    const writeSchema = {
      ...common,
      operationId: "writeFile",
      summary: "Write a file",
      description:
        "With the directories above it that are missing. A file that is there is replaced by the whole of the new one, or stays as it " +
        "was. May be compressed with gzip, which `Content-Encoding` then says.",
      rawBody: { type: "application/octet-stream", description: "The file's bytes." },
      response: { 200: fileEntrySchema, 201: fileEntrySchema },
      errors: fileChangeErrors,
    };
    app.put(files, { schema: writeSchema, config }, async (request, reply) => {
      const guest = await reach(request);
      const { entry, isNew } = await withUpload(
        request,
        reply,
        { codings: ["gzip"], idleMs: uploadIdleMs },
        async (upload) => writeFile(guest, request.query, upload),
      );
      return reply.code(isNew ? 201 : 200).send(entry);
    });

    const extractSchema = {
      ...common,
      operationId: "extractArchive",
      summary: "Fill a directory from a tar archive",
      description: "What the archive has is made or replaced; what else is in the directory stays.",
      rawBody: { type: "application/x-tar", description: "A tar archive, uncompressed, with relative paths." },
      response: { 200: fileEntrySchema },
      errors: [...fileChangeErrors, "invalid_archive"] as const,
    };
    app.put(`${files}/archive`, { schema: extractSchema, config }, async (request, reply) => {
      const guest = await reach(request);
      return withUpload(request, reply, { codings: [], idleMs: uploadIdleMs }, async (upload) =>
        extractArchive(guest, request.query, upload),
      );
    });
  };
}

async function withUpload<Result>(
  { raw }: FastifyRequest,
  reply: FastifyReply,
  { codings, idleMs }: { readonly codings: readonly string[]; readonly idleMs: number },
  work: (upload: Upload) => Promise<Result>,
): Promise<Result> {
  const headers = pick(raw.headers, ["content-length", "content-encoding"]);
  const coding = headers["content-encoding"]?.trim().toLowerCase() ?? "identity";
  if (coding !== "identity" && !codings.includes(coding)) {
    throw new WrennError("unsupported_media_type", {
      message: `The body's content encoding is not understood here: ${coding.slice(0, 80)}.`,
      suggestion: ["Send the body as it is", ...codings.map((known) => `compressed with ${known}`)].join(", or ") + ".",
    });
  }
  const body = hasBody(raw) ? new UploadBody(raw, idleMs) : null;
  try {
    return await work({ body, headers, signal: endedByClient(reply).signal });
  } finally {
    body?.destroy();
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}

/** After the directory, where its path says how it is called. */
function archiveName(path: string): string {
  const name = path.split("/").findLast((part) => part !== "") ?? "";
  return /^(~|\.{0,2})$/.test(name) ? "archive.tar" : `${name}.tar`;
}

/** As RFC 8187 has it, which is stricter than what URLs need. */
function encodeName(name: string): string {
  return encodeURIComponent(name).replaceAll(/['()*]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`);
}

/** As a download that no browser opens by itself: the bytes are those of code that nobody trusts. */
async function sendContent(
  reply: FastifyReply,
  { status, headers, body }: FileContent,
  { type, disposition }: { readonly type: string; readonly disposition: string },
): Promise<FastifyReply> {
  void reply.code(status).headers({
    ...pick(headers, passedToCaller),
    "Content-Disposition": disposition,
    "X-Content-Type-Options": "nosniff",
    // Nothing is believed without asking again: a program in the sandbox may change it at any time.
    "Cache-Control": "private, no-cache",
  });
  giveUpIdleReader(reply);
  if (status === 304) {
    body.resume();
    return reply.send();
  }
  return reply.type(type).send(body);
}

function pick<Name extends string>(
  headers: NodeJS.Dict<string | string[]>,
  names: readonly Name[],
): Partial<Record<Name, string>> {
  const picked: Partial<Record<Name, string>> = {};
  for (const name of names) {
    const value = headers[name];
    if (typeof value === "string") picked[name] = value;
  }
  return picked;
}
