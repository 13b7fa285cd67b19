/** Creates a sandbox from a frozen state: its template's own where that is a snapshot, else the golden one of its shape. */
import { type SandboxId, sandboxLimits, type TeamId, type TemplateId, WrennError } from "@wrenn/contract";
import type { Engine } from "../engines/engine.ts";
import type { GenerationManifest } from "../memory/manifest.ts";
import { bringUp, type Progress } from "./bring-up.ts";
import { record, type SandboxContext } from "./context.ts";
import type { SandboxFacts } from "./journal.ts";
import { diskOver } from "./own-disk.ts";

export interface CreateRequest {
  readonly sandboxId: SandboxId;
  readonly teamId: TeamId;
  readonly templateTeamId: TeamId;
  readonly templateId: TemplateId;
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly diskMib: number;
  readonly envs: Readonly<Record<string, string>>;
  readonly accessToken: string;
  /** What the frozen guest of a snapshot template demands; null for others. */
  readonly templateAccessToken: string | null;
}

/** The facts of a sandbox that is about to be created. */
export function factsOfRequest(request: CreateRequest, engine: Engine): SandboxFacts {
  const { sandboxId, teamId, templateTeamId, templateId, vcpus, memoryMib, diskMib } = request;
  return {
    version: 2,
    sandboxId,
    teamId,
    template: { teamId: templateTeamId, templateId },
    vcpus,
    memoryMib,
    diskMib,
    engine: engine.kind,
    createdAt: new Date().toISOString(),
  };
}

/** Who a copy of a frozen guest is to be. */
export interface Newcomer {
  readonly facts: SandboxFacts;
  readonly accessToken: string;
  /** What the frozen guest demands; null where it demands nothing. */
  readonly frozenToken: string | null;
  /** Null keeps what the frozen guest has. */
  readonly envs: Readonly<Record<string, string>> | null;
}

/** Resolves once the guest has taken its identity and the journal says `running`. A failure leaves nothing. */
export async function startFrozenCopy(
  context: SandboxContext,
  engine: Engine,
  manifest: GenerationManifest,
  newcomer: Newcomer,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const { facts, accessToken, frozenToken, envs } = newcomer;
  const { sandboxId } = facts;
  await bringUp(
    context,
    engine,
    {
      operation: "create",
      facts,
      source: { from: "frozen", manifest },
      disk: diskOver(manifest.disk),
      keepsOverlay: false,
      underWay: (held) => ({ ...facts, ...held, state: "creating", origin: manifest.id }),
      fallback: null,
      lastPause: null,
      guest: { sandboxId, accessToken, frozen: { accessToken: frozenToken }, envs, dns: context.dns },
    },
    progress,
    signal,
    (running) => record(context, progress, running),
  );
}

/** Sizes as the platform allows them, checked here again because this is where they cost. */
export function assertSizes(request: CreateRequest): void {
  for (const name of ["vcpus", "memoryMib", "diskMib"] as const) {
    const { min, max } = sandboxLimits[name];
    const value = request[name];
    if (value < min || value > max) {
      throw new WrennError("invalid_request", {
        message: `${name} is ${value}; it must be from ${min} to ${max}.`,
        details: { field: name, min, max },
      });
    }
  }
}
