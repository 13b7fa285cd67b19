/** The host agent's RPC: checks what comes in, calls the sandboxes, and attaches the registry's code to every error. */
import { create as createMessage } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import {
  asWrennError,
  environmentLimits,
  hostAgentProto,
  parseUuid,
  type SandboxId,
  toErrorInfo,
  WrennError,
} from "@wrenn/contract";
import type { Layout } from "@wrenn/system";
import type { BaseLogger } from "pino";
import { overlayUsedBytes } from "../disks/qcow2.ts";
import type { HostFacts } from "../host.ts";
import type { CreateRequest } from "../sandboxes/create.ts";
import type { Journal } from "../sandboxes/journal.ts";
import type { Sandboxes } from "../sandboxes/sandboxes.ts";

const { ErrorInfoSchema, HostAgent, SandboxSchema, SandboxState } = hostAgentProto;

export interface ServiceOptions {
  readonly sandboxes: Sandboxes;
  readonly layout: Layout;
  readonly hostFacts: () => Promise<HostFacts>;
  readonly log: BaseLogger;
}

export function hostAgentRoutes(options: ServiceOptions): (router: ConnectRouter) => void {
  const { sandboxes, layout, hostFacts, log } = options;
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
  return (router) => {
    router.service(HostAgent, {
      getHost: () => answer("GetHost", {}, hostFacts),
      createSandbox: (request) =>
        answer("CreateSandbox", request, async () => {
          const journal = await sandboxes.create(parseCreateRequest(request));
          return { sandbox: await describeSandbox(layout, journal) };
        }),
      destroySandbox: (request) =>
        answer("DestroySandbox", request, async () => {
          await sandboxes.destroy(sandboxId(request));
          return {};
        }),
      getSandbox: (request) =>
        answer("GetSandbox", request, async () => ({
          sandbox: await describeSandbox(layout, sandboxes.get(sandboxId(request))),
        })),
      listSandboxes: () =>
        answer("ListSandboxes", {}, async () => ({
          sandboxes: await Promise.all(sandboxes.list().map((journal) => describeSandbox(layout, journal))),
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

function parseCreateRequest(request: hostAgentProto.CreateSandboxRequest): CreateRequest {
  const { vcpus, memoryMib, diskMib, envs, accessToken } = request;
  if (accessToken === "") throw new WrennError("invalid_request", { message: "accessToken is missing." });
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
    accessToken,
  };
}

async function describeSandbox(layout: Layout, journal: Journal): Promise<hostAgentProto.Sandbox> {
  const { overlay } = layout.sandbox(journal.sandboxId);
  return createMessage(SandboxSchema, {
    sandboxId: journal.sandboxId,
    state: stateOf(journal),
    vcpus: journal.vcpus,
    memoryMib: journal.memoryMib,
    diskMib: journal.diskMib,
    engine: journal.engine,
    createdAt: timestampFromDate(new Date(journal.createdAt)),
    diskUsedBytes: BigInt(await overlayUsedBytes(overlay)),
    ...("steps" in journal ? { steps: journal.steps } : {}),
    ...(journal.state === "dead"
      ? {
          death: {
            code: journal.death.code,
            message: journal.death.message,
            at: timestampFromDate(new Date(journal.death.at)),
            consoleTail: journal.death.consoleTail,
          },
        }
      : {}),
  });
}

function stateOf(journal: Journal): hostAgentProto.SandboxState {
  switch (journal.state) {
    case "creating":
      return SandboxState.CREATING;
    case "running":
      return SandboxState.RUNNING;
    case "destroying":
      return SandboxState.DESTROYING;
    case "dead":
      return SandboxState.DEAD;
    default:
      return journal satisfies never;
  }
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
