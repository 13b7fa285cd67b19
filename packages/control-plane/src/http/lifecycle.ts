/** What hosts do with sandboxes that exist: `/v1/sandboxes/{id}/pause`, `/resume`, `/fork`, `/recover`, and `/timeout` for its timing. */
import {
  forkedSandboxesSchema,
  forkSandboxSchema,
  parseId,
  recoverSandboxSchema,
  sandboxParamsSchema,
  sandboxSchema,
  setTimeoutSchema,
} from "@wrenn/contract";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { AccessTokens } from "../services/access-tokens.ts";
import type { ApiKeys } from "../services/api-keys.ts";
import type { Forks } from "../services/forks.ts";
import type { Freezing } from "../services/freezing.ts";
import type { Recoveries } from "../services/recoveries.ts";
import type { Sandboxes } from "../services/sandboxes.ts";
import { requireKey } from "./authenticate.ts";
import { sandboxPresenter } from "./present-sandbox.ts";
import { copyErrors, freezeErrors, startErrors } from "./route-errors.ts";

const tags = ["Sandboxes"];
const params = sandboxParamsSchema;

export function lifecycleRoutes({
  sandboxes,
  freezing,
  forks,
  recoveries,
  tokens,
  apiKeys,
}: {
  sandboxes: Sandboxes;
  freezing: Freezing;
  forks: Forks;
  recoveries: Recoveries;
  tokens: AccessTokens;
  apiKeys: ApiKeys;
}): FastifyPluginAsyncZod {
  return async (app) => {
    app.addHook("onRequest", requireKey(apiKeys));
    const { show, showWithToken } = sandboxPresenter(sandboxes, tokens);

    app.post(
      "/v1/sandboxes/:id/pause",
      {
        schema: {
          operationId: "pauseSandbox",
          tags,
          summary: "Pause a sandbox",
          description:
            "Freezes its memory, processes and disk, and answers once they are safe on its host's disk; all else of it is freed. One " +
            "that is paused already is success. When it fails the sandbox runs on. A client that leaves changes nothing.",
          params,
          response: { 200: sandboxSchema },
          errors: freezeErrors,
        },
      },
      async (request) => show(await freezing.pause(request.teamId, parseId("sandbox", request.params.id))),
    );

    app.post(
      "/v1/sandboxes/:id/resume",
      {
        schema: {
          operationId: "resumeSandbox",
          tags,
          summary: "Resume a sandbox",
          description:
            "Its processes go on where they were. Answers once it runs; one that runs already is success. When it fails the sandbox " +
            "is paused still. Connections that were open when it was paused are broken.",
          params,
          response: { 200: sandboxSchema },
          errors: startErrors,
        },
      },
      async (request) => show(await freezing.resume(request.teamId, parseId("sandbox", request.params.id))),
    );

    app.post(
      "/v1/sandboxes/:id/fork",
      {
        schema: {
          operationId: "forkSandbox",
          tags,
          summary: "Copy a sandbox",
          description:
            "Memory, processes and disk, as they are at one moment; a running sandbox goes on. Each copy is a sandbox of its own, on the " +
            "same host. Answers once all of them run; when one does not, there are none.",
          params,
          body: forkSandboxSchema,
          response: { 201: forkedSandboxesSchema },
          errors: [...copyErrors, ...startErrors],
        },
      },
      async (request, reply) => {
        const rows = await forks.fork(request.teamId, parseId("sandbox", request.params.id), request.body);
        return reply.code(201).send({ sandboxes: rows.map((row) => showWithToken(row)) });
      },
    );

    app.post(
      "/v1/sandboxes/:id/recover",
      {
        schema: {
          operationId: "recoverSandbox",
          tags,
          summary: "Start a sandbox again that has died",
          description:
            "From what it is `recoverable` from, and never from anything else than what is asked for. Answers once it runs; when it fails " +
            "the sandbox is as it was.",
          params,
          body: recoverSandboxSchema,
          response: { 200: sandboxSchema },
          errors: [...startErrors, "recovery_unavailable", "boot_files_missing", "guest_boot_timeout"],
        },
      },
      async (request) =>
        show(await recoveries.recover(request.teamId, parseId("sandbox", request.params.id), request.body.from)),
    );

    app.post(
      "/v1/sandboxes/:id/timeout",
      {
        schema: {
          operationId: "setSandboxTimeout",
          tags,
          summary: "Set a sandbox's timeout",
          description: "It counts from now on.",
          params,
          body: setTimeoutSchema,
          response: { 200: sandboxSchema },
          errors: ["sandbox_state_conflict"],
        },
      },
      async (request) =>
        show(await sandboxes.update(request.teamId, parseId("sandbox", request.params.id), request.body)),
    );
  };
}
