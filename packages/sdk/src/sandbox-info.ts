/** A sandbox, its metrics and its console as the server describes them, in the SDK's words. */
import type {
  Console,
  MemoryBackend,
  Metrics,
  RecoverySource,
  Sandbox as SandboxBody,
  SandboxStatus,
  TimeoutAction,
} from "@wrenn/contract";

export type { MemoryBackend, RecoverySource, SandboxStatus, TimeoutAction } from "@wrenn/contract";

export interface SandboxInfo {
  id: string;
  teamId: string;
  /** Name of the template it was made from. */
  template: string;
  status: SandboxStatus;
  /** Why it is in `error`, `missing` or `stopped`, where there is more to say than the status does. */
  statusReason: { code: string; message: string } | null;
  vcpus: number;
  memoryMib: number;
  diskMib: number;
  metadata: Record<string, string>;
  /** Milliseconds without any use after which `onTimeout` happens; null for never. */
  timeoutMs: number | null;
  onTimeout: TimeoutAction;
  /** When it will have been idle for too long, unless it is used before; null without a timeout, and where it does not run. */
  expiresAt: Date | null;
  hostId: string | null;
  /** `firecracker`, `qemu-kvm` or `qemu-tcg` (software emulation); null until it has started. */
  engine: string | null;
  /** Why its host chose that engine, in a sentence. */
  engineReason: string | null;
  /** How its disk is kept: `qcow2` or `dm-snapshot`; null until it has started. */
  diskFormat: string | null;
  /**
   * How it gets the memory that it was frozen with: `file`, mapped from files, or `uffd`, page by page on demand. Null while
   * it does not run.
   */
  memoryBackend: MemoryBackend | null;
  /** What `recover` can start it again from after its virtual machine has died; empty unless it is in `error`. */
  recoverable: RecoverySource[];
  createdAt: Date;
  /** When it first ran. */
  startedAt: Date | null;
  /** Since when it is paused; null unless it is. */
  pausedAt: Date | null;
}

export function toSandboxInfo(body: SandboxBody): SandboxInfo {
  return {
    id: body.id,
    teamId: body.team_id,
    template: body.template,
    status: body.status,
    statusReason: body.status_reason,
    vcpus: body.vcpus,
    memoryMib: body.memory_mib,
    diskMib: body.disk_mib,
    metadata: body.metadata,
    timeoutMs: body.timeout_seconds === null ? null : body.timeout_seconds * 1_000,
    onTimeout: body.on_timeout,
    expiresAt: toDate(body.expires_at),
    hostId: body.host_id,
    engine: body.engine,
    engineReason: body.engine_reason,
    diskFormat: body.disk_format,
    memoryBackend: body.memory_backend,
    recoverable: body.recoverable,
    createdAt: new Date(body.created_at),
    startedAt: toDate(body.started_at),
    pausedAt: toDate(body.paused_at),
  };
}

function toDate(text: string | null): Date | null {
  return text === null ? null : new Date(text);
}

/** The server counts whole seconds: a part of one is rounded up. Null stays null, for never. */
export function toSeconds<Given extends number | null | undefined>(milliseconds: Given): number | Given {
  return typeof milliseconds === "number" ? Math.ceil(milliseconds / 1_000) : milliseconds;
}

/** What a sandbox uses right now, as its guest measures it. */
export interface SandboxMetrics {
  measuredAt: Date;
  cpuCount: number;
  /** Of all its processors. */
  cpuUsedPercent: number;
  memoryTotalBytes: number;
  memoryUsedBytes: number;
  memoryCacheBytes: number;
  diskTotalBytes: number;
  diskUsedBytes: number;
}

export function toMetrics(body: Metrics): SandboxMetrics {
  return {
    measuredAt: new Date(body.measured_at),
    cpuCount: body.cpu_count,
    cpuUsedPercent: body.cpu_used_percent,
    memoryTotalBytes: body.memory_total_bytes,
    memoryUsedBytes: body.memory_used_bytes,
    memoryCacheBytes: body.memory_cache_bytes,
    diskTotalBytes: body.disk_total_bytes,
    diskUsedBytes: body.disk_used_bytes,
  };
}

/** What a sandbox's kernel and its first process printed. */
export interface SandboxConsole {
  text: string;
  /** Where `text` begins, in bytes since the sandbox was started; more than was asked for when older output was dropped. */
  offset: number;
  /** To be asked for next: only what came after this. */
  nextOffset: number;
}

export function toConsole(body: Console): SandboxConsole {
  return { text: body.text, offset: body.offset, nextOffset: body.next_offset };
}
