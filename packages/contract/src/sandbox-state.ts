/** The life of a sandbox: the only place that knows which state may follow which, and what may be asked in which state. */

export const sandboxStatuses = ["pending", "starting", "running", "stopping", "stopped", "missing", "error"] as const;
export type SandboxStatus = (typeof sandboxStatuses)[number];

const successors: Record<SandboxStatus, readonly SandboxStatus[]> = {
  pending: ["starting", "stopping", "error"],
  starting: ["running", "stopping", "error"],
  running: ["missing", "stopping", "error"],
  missing: ["running", "stopping", "error"],
  error: ["stopping"],
  stopping: ["stopped", "error"],
  stopped: [],
};

/** Whether the state machine has an edge from one status to the other. */
export function mayBecome(from: SandboxStatus, to: SandboxStatus): boolean {
  return successors[from].includes(to);
}

/** Statuses that something is working on: each has a deadline, and a task that resolves it by asking the host. */
export const transitionalStatuses = ["pending", "starting", "stopping"] as const satisfies readonly SandboxStatus[];

/** Statuses whose memory, processors and disk count against the host and the team. */
export const occupyingStatuses = [
  "pending",
  "starting",
  "running",
  "missing",
  "stopping",
] as const satisfies readonly SandboxStatus[];

/** Statuses of sandboxes whose metadata and timeout may still change. */
export const updatableStatuses = [
  "pending",
  "starting",
  "running",
  "missing",
] as const satisfies readonly SandboxStatus[];

export function isTransitional(status: SandboxStatus): boolean {
  return (transitionalStatuses as readonly SandboxStatus[]).includes(status);
}

/** Which actions a status allows; shared by server, CLI and dashboard. */
export const can = {
  /** Reach the guest: exec, files, terminal, ports. */
  reach: (status: SandboxStatus): boolean => status === "running",
  /** Delete works from every state; a stopped sandbox has nothing left to delete. */
  destroy: (status: SandboxStatus): boolean => status !== "stopped",
} as const;
