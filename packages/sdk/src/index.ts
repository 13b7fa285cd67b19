export type { BodySource } from "./bodies.ts";
export * from "./command-handle.ts";
export type { CommandLine, ProcessOptions } from "./command-line.ts";
export * from "./commands.ts";
export type { ConnectionOptions, FetchFunction, RequestOptions } from "./connection.ts";
export {
  AuthenticationError,
  CapacityError,
  CommandError,
  ConflictError,
  ConnectionError,
  FileError,
  GuestError,
  InvalidRequestError,
  SandboxNotFoundError,
  SnapshotNotFoundError,
  TimeoutError,
} from "./errors.ts";
export type { FileEntry } from "./file-entry.ts";
export type { ByteRange } from "./file-transfer.ts";
export type { FileChange, FileChangeListener, FileWatch, WatchOptions } from "./file-watch.ts";
export * from "./files.ts";
export * from "./health.ts";
export type { OutputListener, OutputListeners } from "./output.ts";
export type { ProcessHandle } from "./process-handle.ts";
export type { CommandResult } from "./process-stream.ts";
export type { CommandOutput, RunOptions } from "./run-command.ts";
export type {
  MemoryBackend,
  RecoverySource,
  SandboxConsole,
  SandboxInfo,
  SandboxMetrics,
  SandboxStatus,
  TimeoutAction,
} from "./sandbox-info.ts";
export * from "./sandbox-options.ts";
export * from "./sandbox.ts";
export type { CreateSnapshotOptions, ListSnapshotsOptions, SnapshotInfo } from "./snapshots.ts";
export * from "./terminal-handle.ts";
export * from "./terminals.ts";
export { type ErrorCode, type SignalName, WrennError } from "@wrenn/contract";
