/** A sandbox as `--json` shows it: in the API's own words, so that programs may read either. */
import type { Sandbox as SandboxBody } from "@wrenn/contract";
import type { SandboxInfo } from "@wrenn/sdk";

export function sandboxToJson(info: SandboxInfo): SandboxBody {
  return {
    id: info.id,
    team_id: info.teamId,
    template: info.template,
    status: info.status,
    status_reason: info.statusReason,
    vcpus: info.vcpus,
    memory_mib: info.memoryMib,
    disk_mib: info.diskMib,
    metadata: info.metadata,
    timeout_seconds: info.timeoutMs === null ? null : info.timeoutMs / 1_000,
    on_timeout: info.onTimeout,
    expires_at: info.expiresAt?.toISOString() ?? null,
    host_id: info.hostId,
    engine: info.engine,
    engine_reason: info.engineReason,
    disk_format: info.diskFormat,
    memory_backend: info.memoryBackend,
    recoverable: info.recoverable,
    created_at: info.createdAt.toISOString(),
    started_at: info.startedAt?.toISOString() ?? null,
    paused_at: info.pausedAt?.toISOString() ?? null,
  };
}
