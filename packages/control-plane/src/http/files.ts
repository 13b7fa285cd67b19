/** `/v1/sandboxes/{id}/files`: what there is in a sandbox, and making, moving, removing, watching and carrying it. */
import {
  fileEntrySchema,
  listFilesQuerySchema,
  listFilesSchema,
  makeDirectorySchema,
  moveSchema,
  parseId,
  pathQuerySchema,
  sandboxParamsSchema,
  WrennError,
} from "@wrenn/contract";
import type { FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import { z } from "zod";
import type { ApiKeys } from "../services/api-keys.ts";
import { listFiles, makeDirectory, moveFile, removeFile, statFile } from "../services/files.ts";
import type { Guest, Guests } from "../services/guests.ts";
import { requireKey } from "./authenticate.ts";
import { fileTransferRoutes } from "./file-transfers.ts";
import { fileWatchRoute } from "./file-watch.ts";
import { fileChangeErrors, fileErrors } from "./route-errors.ts";

const params = sandboxParamsSchema;
const tags = ["Files"];

/** What the plugins that share these addresses need. */
export interface FileAddress {
  readonly files: string;
  readonly params: typeof params;
  /** @throws WrennError when the sandbox is not the caller's, or does not run */
  readonly reach: (request: FastifyRequest<{ Params: { id: string } }>) => Promise<Guest>;
}

export interface FileRoutesOptions {
  readonly guests: Guests;
  readonly apiKeys: ApiKeys;
  /** Aborted when the server stops: what would go on for ever ends. */
  readonly stopping: AbortSignal;
  /** How long a client may send nothing of its upload. */
  readonly uploadIdleMs: number;
}

export function fileRoutes({ guests, apiKeys, stopping, uploadIdleMs }: FileRoutesOptions): FastifyPluginAsyncZod {
  return async (app) => {
    const files = "/v1/sandboxes/:id/files";
    const reach: FileAddress["reach"] = async ({ teamId, params }) =>
      guests.reach(teamId, parseId("sandbox", params.id));

    app.addHook("onRequest", requireKey(apiKeys));
    app.addHook("preValidation", async (request) => {
      assertDecodable(request.url);
    });

    app.get(
      `${files}/stat`,
      {
        schema: {
          operationId: "statFile",
          tags,
          summary: "Look at a path",
          description: "What there is, how large, whose, since when.",
          params,
          querystring: pathQuerySchema,
          response: { 200: fileEntrySchema },
          errors: fileErrors,
        },
      },
      async (request) => statFile(await reach(request), request.query),
    );

    app.get(
      `${files}/list`,
      {
        schema: {
          operationId: "listFiles",
          tags,
          summary: "List a directory",
          description: "Its entries, and with a depth those below them.",
          params,
          querystring: listFilesQuerySchema,
          response: { 200: listFilesSchema },
          errors: fileErrors,
        },
      },
      async (request) => ({ entries: await listFiles(await reach(request), request.query) }),
    );

    app.post(
      `${files}/mkdir`,
      {
        schema: {
          operationId: "makeDirectory",
          tags,
          summary: "Make a directory",
          description: "With those above it that are missing.",
          params,
          body: makeDirectorySchema,
          response: { 201: fileEntrySchema },
          errors: fileChangeErrors,
        },
      },
      async (request, reply) => reply.code(201).send(await makeDirectory(await reach(request), request.body)),
    );

    app.post(
      `${files}/move`,
      {
        schema: {
          operationId: "moveFile",
          tags,
          summary: "Move or rename",
          description: "A file or a directory with all that is in it.",
          params,
          body: moveSchema,
          response: { 200: fileEntrySchema },
          errors: fileChangeErrors,
        },
      },
      async (request) => moveFile(await reach(request), request.body),
    );

    await app.register(fileTransferRoutes({ files, params, reach, uploadIdleMs }));
    await app.register(fileWatchRoute({ files, params, reach, stopping }));

    app.delete(
      files,
      {
        schema: {
          operationId: "removeFile",
          tags,
          summary: "Remove a file or a directory",
          description: "A directory with all that is in it.",
          params,
          querystring: pathQuerySchema,
          response: { 204: z.undefined().describe("It is gone.") },
          errors: fileErrors,
        },
      },
      async (request, reply) => {
        await removeFile(await reach(request), request.query);
        return reply.code(204).send();
      },
    );
  };
}

/** What is not UTF-8 would be taken as it is written, and name another file than the caller means. */
function assertDecodable(url: string): void {
  try {
    decodeURIComponent(url);
  } catch (error) {
    throw new WrennError("invalid_request", {
      message: "The address is not percent-encoded UTF-8.",
      suggestion: "Encode the path as encodeURIComponent does.",
      cause: error,
    });
  }
}
