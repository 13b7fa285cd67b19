/** Rows of sandboxes as the API shows them. */
import { formatId } from "@wrenn/contract";
import type { CreatedSandbox, Sandbox, SandboxId } from "@wrenn/contract";
import type { NamedSandboxRow } from "../store/sandboxes.ts";

export interface SandboxPresenter {
  readonly show: (row: NamedSandboxRow) => Sandbox;
  readonly showWithToken: (row: NamedSandboxRow) => CreatedSandbox;
}

export function sandboxPresenter(
  sandboxes: { expiryOf(row: NamedSandboxRow): Date | null },
  tokens: { of(id: SandboxId): string },
): SandboxPresenter {
  const show = (row: NamedSandboxRow): Sandbox => present(row, sandboxes.expiryOf(row));
  return { show, showWithToken: (row) => ({ ...show(row), access_token: tokens.of(row.id) }) };
}

function present(row: NamedSandboxRow, expiresAt: Date | null): Sandbox {
  return {
    id: formatId("sandbox", row.id),
    team_id: formatId("team", row.team_id),
    template: row.template,
    status: row.status,
    status_reason:
      row.status_reason_code === null
        ? null
        : { code: row.status_reason_code, message: row.status_reason_message ?? "" },
    vcpus: row.vcpus,
    memory_mib: row.memory_mib,
    disk_mib: row.disk_mib,
    metadata: row.metadata,
    timeout_seconds: row.timeout_seconds,
    on_timeout: row.on_timeout,
    expires_at: expiresAt?.toISOString() ?? null,
    host_id: row.host_id === null ? null : formatId("host", row.host_id),
    engine: row.engine,
    engine_reason: row.engine_reason,
    disk_format: row.disk_format,
    memory_backend: row.memory_backend,
    recoverable: row.recoverable,
    created_at: row.created_at.toISOString(),
    started_at: row.started_at?.toISOString() ?? null,
    paused_at: row.status === "paused" ? (row.paused_at?.toISOString() ?? null) : null,
  };
}
