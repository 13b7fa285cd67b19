/** The tables as Kysely sees them. migrations/ is what makes them; the two change together. */
import type {
  ApiKeyId,
  EventId,
  GenerationId,
  HostId,
  MemoryBackend,
  RecoverySource,
  SandboxId,
  SandboxStatus,
  TeamId,
  TemplateId,
  TimeoutAction,
} from "@wrenn/contract";
import type { ColumnType, Generated, JSONColumnType, Selectable } from "kysely";

type Timestamp = ColumnType<Date, Date | undefined, Date>;
type NullableTimestamp = ColumnType<Date | null, Date | null | undefined, Date | null>;
type Defaulted<Value> = ColumnType<Value, Value | undefined, Value>;

export type TemplateType = "base" | "snapshot";
export type TemplateStatus = "creating" | "ready" | "deleting" | "deleted";
export type HostType = "regular" | "byoc";
export type HostStatus = "online" | "unreachable";

interface TeamTable {
  id: TeamId;
  name: string;
  created_at: Timestamp;
}

interface TemplateTable {
  id: TemplateId;
  team_id: TeamId;
  name: string;
  type: TemplateType;
  vcpus: number | null;
  memory_mib: number | null;
  disk_mib: number;
  created_at: Timestamp;
  host_id: Defaulted<HostId | null>;
  generation_id: Defaulted<GenerationId | null>;
  source_sandbox_id: Defaulted<SandboxId | null>;
  size_bytes: Generated<number>;
  engine: Defaulted<string | null>;
  engine_version: Defaulted<string | null>;
  cpu: Defaulted<string | null>;
  disk_format: Defaulted<string | null>;
  status: Defaulted<TemplateStatus>;
  deadline_at: NullableTimestamp;
  deleted_at: NullableTimestamp;
}

interface ApiKeyTable {
  id: ApiKeyId;
  team_id: TeamId;
  name: string;
  key_hash: Buffer;
  prefix: string;
  created_at: Timestamp;
  last_used_at: NullableTimestamp;
  revoked_at: NullableTimestamp;
}

interface HostTable {
  id: HostId;
  name: string;
  type: HostType;
  team_id: TeamId;
  address: string;
  status: HostStatus;
  cpu_count: Generated<number>;
  memory_mib: Generated<number>;
  agent_version: Defaulted<string | null>;
  engine: Defaulted<string | null>;
  engine_version: Defaulted<string | null>;
  engine_reason: Defaulted<string | null>;
  cpu: Defaulted<string | null>;
  disk_format: Defaulted<string | null>;
  disk_reason: Defaulted<string | null>;
  disk_formats: Defaulted<string[]>;
  memory_backends: Defaulted<string[]>;
  created_at: Timestamp;
  last_seen_at: NullableTimestamp;
  contact_lost_at: NullableTimestamp;
}

interface SandboxTable {
  id: SandboxId;
  team_id: TeamId;
  template_id: TemplateId;
  template_team_id: TeamId;
  host_id: HostId | null;
  status: SandboxStatus;
  status_reason_code: Defaulted<string | null>;
  status_reason_message: Defaulted<string | null>;
  version: Generated<number>;
  vcpus: number;
  memory_mib: number;
  disk_mib: number;
  metadata: JSONColumnType<Record<string, string>>;
  engine: Defaulted<string | null>;
  engine_version: Defaulted<string | null>;
  engine_reason: Defaulted<string | null>;
  cpu: Defaulted<string | null>;
  disk_format: Defaulted<string | null>;
  deadline_at: NullableTimestamp;
  created_at: Timestamp;
  started_at: NullableTimestamp;
  ended_at: NullableTimestamp;
  timeout_seconds: Defaulted<number | null>;
  on_timeout: Defaulted<TimeoutAction>;
  last_active_at: Timestamp;
  memory_backend: Defaulted<MemoryBackend | null>;
  recoverable: Defaulted<RecoverySource[]>;
  paused_at: NullableTimestamp;
  pause_failures: Generated<number>;
  pause_retry_at: NullableTimestamp;
}

interface SandboxEventTable {
  id: EventId;
  sandbox_id: SandboxId;
  version: number;
  from_status: SandboxStatus | null;
  to_status: SandboxStatus;
  reason_code: string | null;
  reason_message: string | null;
  at: Timestamp;
}

interface ReplicaTable {
  id: string;
  complete_until: Timestamp;
  seen_at: Timestamp;
}

interface IdempotencyKeyTable {
  team_id: TeamId;
  key_hash: Buffer;
  request_hash: Buffer;
  sandbox_id: SandboxId;
  created_at: Timestamp;
}

interface PlatformSecretTable {
  name: string;
  value: Buffer;
  created_at: Timestamp;
}

export interface Database {
  teams: TeamTable;
  templates: TemplateTable;
  api_keys: ApiKeyTable;
  hosts: HostTable;
  sandboxes: SandboxTable;
  sandbox_events: SandboxEventTable;
  platform_secrets: PlatformSecretTable;
  replicas: ReplicaTable;
  idempotency_keys: IdempotencyKeyTable;
}

export type TemplateRow = Selectable<TemplateTable>;
export type HostRow = Selectable<HostTable>;
export type SandboxRow = Selectable<SandboxTable>;

/** In the order of the table. */
export const sandboxColumns = [
  "id",
  "team_id",
  "template_id",
  "template_team_id",
  "host_id",
  "status",
  "status_reason_code",
  "status_reason_message",
  "version",
  "vcpus",
  "memory_mib",
  "disk_mib",
  "metadata",
  "engine",
  "deadline_at",
  "created_at",
  "started_at",
  "ended_at",
  "timeout_seconds",
  "on_timeout",
  "last_active_at",
  "memory_backend",
  "recoverable",
  "paused_at",
  "pause_failures",
  "pause_retry_at",
  "engine_version",
  "engine_reason",
  "cpu",
  "disk_format",
] as const;
