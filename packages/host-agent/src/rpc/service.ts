/** The host agent's RPC: checks what comes in, calls the sandboxes, and attaches the registry's code to every error. */
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import {
  asWrennError,
  environmentLimits,
  hostAgentProto,
  parseUuid,
  type RecoverySource,
  type SandboxId,
  type TeamId,
  type TemplateId,
  toErrorInfo,
  WrennError,
} from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import type { HostFacts } from "../host.ts";
import type { CreateRequest } from "../sandboxes/create.ts";
import type { Listing } from "../sandboxes/listing.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";
import type { Snapshots } from "../sandboxes/snapshots.ts";
import { describeSandbox, describeSnapshot } from "./messages.ts";

const { ErrorInfoSchema, HostAgent, RecoverySource: WireRecoverySource } = hostAgentProto;

export interface ServiceOptions {
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  readonly layout: Layout;
  readonly hostFacts: () => Promise<HostFacts>;
  readonly log: BaseLogger;
}

export function hostAgentRoutes(options: ServiceOptions): (router: ConnectRouter) => void {
  const { sandboxes, snapshots, layout, hostFacts, log } = options;
  const answer = async <Reply>(
    call: string,
    about: { readonly sandboxId?: string },
    work: () => Promise<Reply>,
  ): Promise<Reply> => {
    try {
      return await work();
    } catch (error) {
      throw toConnectError(call, about.sandboxId, error, log);
    }
  };
  const show = async (listing: Listing): Promise<{ sandbox: hostAgentProto.Sandbox }> => ({
    sandbox: await describeSandbox(layout, listing),
  });
  return (router) => {
    router.service(HostAgent, {
      getHost: () => answer("GetHost", {}, hostFacts),
      createSandbox: (request) =>
        answer("CreateSandbox", request, async () => show(await sandboxes.create(parseCreateRequest(request)))),
      pauseSandbox: (request) =>
        answer("PauseSandbox", request, async () => show(await sandboxes.pause(sandboxId(request)))),
      resumeSandbox: (request) =>
        answer("ResumeSandbox", request, async () =>
          show(await sandboxes.resume(sandboxId(request), accessToken(request))),
        ),
      recoverSandbox: (request) =>
        answer("RecoverSandbox", request, async () =>
          show(await sandboxes.recover(sandboxId(request), recoverySource(request), accessToken(request))),
        ),
      forkSandbox: (request) =>
        answer("ForkSandbox", request, async () => {
          const forks = request.forks.map((fork) => ({ sandboxId: sandboxId(fork), accessToken: accessToken(fork) }));
          const listings = await sandboxes.fork(sandboxId(request), accessToken(request), forks);
          return { sandboxes: await Promise.all(listings.map((listing) => describeSandbox(layout, listing))) };
        }),
      createSnapshot: (request) =>
        answer("CreateSnapshot", request, async () => {
          const { teamId, templateId } = templateOf(request);
          return { snapshot: describeSnapshot(await snapshots.create(sandboxId(request), teamId, templateId)) };
        }),
      deleteSnapshot: (request) =>
        answer("DeleteSnapshot", {}, async () => {
          const { teamId, templateId } = templateOf(request);
          await snapshots.delete(teamId, templateId);
          return {};
        }),
      listSnapshots: () =>
        answer("ListSnapshots", {}, async () => ({ snapshots: (await snapshots.list()).map(describeSnapshot) })),
      destroySandbox: (request) =>
        answer("DestroySandbox", request, async () => {
          await sandboxes.destroy(sandboxId(request));
          return {};
        }),
      getSandbox: (request) => answer("GetSandbox", request, async () => show(sandboxes.get(sandboxId(request)))),
      listSandboxes: () =>
        answer("ListSandboxes", {}, async () => ({
          sandboxes: await Promise.all(sandboxes.list().map((listing) => describeSandbox(layout, listing))),
        })),
      readConsole: (request) =>
        answer("ReadConsole", request, async () => {
          const part = await sandboxes.readConsole(sandboxId(request), Number(request.offset));
          return { text: part.text, offset: BigInt(part.offset), nextOffset: BigInt(part.nextOffset) };
        }),
    });
  };
}

function sandboxId(request: { sandboxId: string }): SandboxId {
  return parseUuid("sandbox", request.sandboxId);
}

function accessToken(request: { accessToken: string }): string {
  if (request.accessToken === "") throw new WrennError("invalid_request", { message: "accessToken is missing." });
  return request.accessToken;
}

function templateOf(request: { templateTeamId: string; templateId: string }): {
  teamId: TeamId;
  templateId: TemplateId;
} {
  return {
    teamId: parseUuid("team", request.templateTeamId),
    templateId: parseUuid("template", request.templateId),
  };
}

function recoverySource({ source }: hostAgentProto.RecoverSandboxRequest): RecoverySource {
  if (source === WireRecoverySource.DISK) return "disk";
  if (source === WireRecoverySource.LAST_PAUSE) return "last_pause";
  throw new WrennError("invalid_request", { message: "source is missing." });
}

function parseCreateRequest(request: hostAgentProto.CreateSandboxRequest): CreateRequest {
  const { vcpus, memoryMib, diskMib, envs, templateAccessToken } = request;
  const entries = Object.entries(envs);
  const largest = Math.max(0, ...entries.map(([name, value]) => Buffer.byteLength(`${name}=${value}`)));
  if (entries.length > environmentLimits.maxEntries || largest > environmentLimits.maxBytes) {
    throw new WrennError("invalid_request", {
      message: `envs may have ${environmentLimits.maxEntries} entries of ${environmentLimits.maxBytes} bytes.`,
      details: { field: "envs", ...environmentLimits },
    });
  }
  return {
    sandboxId: sandboxId(request),
    teamId: parseUuid("team", request.teamId),
    templateTeamId: parseUuid("team", request.templateTeamId),
    templateId: parseUuid("template", request.templateId),
    vcpus,
    memoryMib,
    diskMib,
    envs,
    accessToken: accessToken(request),
    templateAccessToken: templateAccessToken === "" ? null : templateAccessToken,
  };
}

function toConnectError(call: string, sandboxId: string | undefined, thrown: unknown, log: BaseLogger): ConnectError {
  const error = asWrennError(thrown);
  if (error.status >= 500) log.error({ call, sandboxId, err: error }, "call failed");
  const detail = { desc: ErrorInfoSchema, value: { ...toErrorInfo(error) } };
  return new ConnectError(error.message, connectCode(error.status), undefined, [detail], thrown);
}

/** The Connect code that stands nearest to an HTTP status; what counts is the registry's code in the details. */
function connectCode(status: number): Code {
  switch (status) {
    case 400:
      return Code.InvalidArgument;
    case 401:
      return Code.Unauthenticated;
    case 404:
      return Code.NotFound;
    case 409:
      return Code.FailedPrecondition;
    case 503:
      return Code.Unavailable;
    case 504:
      return Code.DeadlineExceeded;
    default:
      return Code.Internal;
  }
}
