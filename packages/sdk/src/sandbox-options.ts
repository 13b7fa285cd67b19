/** What can be asked for when a sandbox is made, listed or changed. */
import type { ConnectionOptions, RequestOptions } from "./connection.ts";
import type { RecoverySource, SandboxStatus, TimeoutAction } from "./sandbox-info.ts";

export interface CreateSandboxOptions extends ConnectionOptions, RequestOptions {
  /** Name of a template, or of a snapshot of the team; default `minimal`. */
  template?: string | undefined;
  /** Whole processors, 1 to 32; default 1. A sandbox of a snapshot has the snapshot's, and no others may be asked for. */
  vcpus?: number | undefined;
  /** MiB, 128 to 65 536; default 512. Of a snapshot, as with `vcpus`. */
  memoryMib?: number | undefined;
  /** MiB, 5 120 to 102 400; default 5 120. Of a snapshot, as with `vcpus`. */
  diskMib?: number | undefined;
  /**
   * Milliseconds without any use after which `onTimeout` happens, rounded up to whole seconds, at most 30 days; default null, for
   * never.
   */
  timeoutMs?: number | null | undefined;
  /** What happens to a sandbox that was idle for its whole timeout; default `pause`. */
  onTimeout?: TimeoutAction | undefined;
  /** Yours to find the sandbox by; Wrenn does not interpret it. Up to 64 entries, keys to 128 and values to 1 024 characters. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** Environment of every process in the sandbox, at most 128 KiB. Never shown again. */
  envs?: Readonly<Record<string, string>> | undefined;
  /**
   * Of several creates with the same key within a day, one makes a sandbox and all get it. Default: a new one for each call, so
   * that it can be tried again when the connection breaks.
   */
  idempotencyKey?: string | undefined;
  /** Stops waiting. The server goes on creating: list the sandboxes to find it. */
  signal?: AbortSignal | undefined;
}

export interface ListSandboxesOptions extends ConnectionOptions, RequestOptions {
  /** One or several; default all but `stopped`. */
  status?: SandboxStatus | readonly SandboxStatus[] | undefined;
  /** Name of a template or snapshot. */
  template?: string | undefined;
  /** Only those whose metadata has all of these. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** How many at most; default all. */
  limit?: number | undefined;
}

export interface SandboxChange {
  /** Replaces all of it. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** Milliseconds from now on, rounded up to whole seconds; null for never. */
  timeoutMs?: number | null | undefined;
  onTimeout?: TimeoutAction | undefined;
}

export interface ForkOptions extends RequestOptions {
  /** How many copies, 1 to 50; default 1. */
  count?: number | undefined;
  /** Of each copy; default the sandbox's own. */
  metadata?: Readonly<Record<string, string>> | undefined;
  /** Of each copy, in milliseconds, rounded up to whole seconds; null for never. Default the sandbox's own. */
  timeoutMs?: number | null | undefined;
}

export interface RecoverOptions extends RequestOptions {
  /**
   * `disk`: boots from the disk as the death left it, as after a power cut; what was in memory is lost. `last_pause`: goes back to
   * memory and disk of the last pause; what was done since is lost. `info.recoverable` says which of them there are.
   */
  from: RecoverySource;
}
