/** The life of a sandbox: the only place that knows which state may follow which, and what may be asked in which state. */

export const sandboxStatuses = [
  "pending",
  "starting",
  "running",
  "snapshotting",
  "pausing",
  "paused",
  "resuming",
  "stopping",
  "stopped",
  "missing",
  "error",
] as const;
export type SandboxStatus = (typeof sandboxStatuses)[number];

const successors: Record<SandboxStatus, readonly SandboxStatus[]> = {
  pending: ["starting", "stopping", "error"],
  // Nobody waits for ever for a host that stays away.
  starting: ["running", "missing", "stopping", "error"],
  // A host pauses what it holds by itself when nobody can be asked.
  running: ["snapshotting", "pausing", "paused", "missing", "stopping", "error"],
  snapshotting: ["running", "missing", "stopping", "error"],
  pausing: ["paused", "running", "missing", "stopping", "error"],
  paused: ["resuming", "stopping", "error"],
  resuming: ["running", "paused", "missing", "stopping", "error"],
  missing: ["running", "paused", "stopping", "error"],
  // Recovered: started again from its disk, or from its last pause.
  error: ["starting", "stopping"],
  stopping: ["stopped", "error"],
  stopped: [],
};

/** Whether the state machine has an edge from one status to the other. */
export function mayBecome(from: SandboxStatus, to: SandboxStatus): boolean {
  return successors[from].includes(to);
}

/** Statuses that something is working on: each has a deadline, and a task that resolves it by asking the host. */
export const transitionalStatuses = [
  "pending",
  "starting",
  "snapshotting",
  "pausing",
  "resuming",
  "stopping",
] as const satisfies readonly SandboxStatus[];

/** Statuses whose memory and processors count against the host and the team. */
export const occupyingStatuses = [
  "pending",
  "starting",
  "running",
  "snapshotting",
  "pausing",
  "resuming",
  "missing",
  "stopping",
] as const satisfies readonly SandboxStatus[];

/** Statuses of which a host may hold something: a virtual machine, a frozen state, or the disk of one that died. */
export const residentStatuses = [...occupyingStatuses, "paused", "error"] as const satisfies readonly SandboxStatus[];

/** Statuses of sandboxes whose metadata and timeout may still change. */
export const updatableStatuses = [
  "pending",
  "starting",
  "running",
  "snapshotting",
  "pausing",
  "paused",
  "resuming",
  "missing",
] as const satisfies readonly SandboxStatus[];

export function isTransitional(status: SandboxStatus): boolean {
  return (transitionalStatuses as readonly SandboxStatus[]).includes(status);
}

/** Which actions a status allows; shared by server, CLI and dashboard. */
export const can = {
  /** Reach the guest: exec, files, terminal, ports. While a snapshot is taken it answers a moment later. */
  reach: (status: SandboxStatus): boolean => status === "running" || status === "snapshotting",
  pause: (status: SandboxStatus): boolean => status === "running",
  resume: (status: SandboxStatus): boolean => status === "paused",
  /** Take a named snapshot, or fork: what is frozen already need not be frozen for it. */
  copy: (status: SandboxStatus): boolean => status === "running" || status === "paused",
  /** Start again what has died, from its disk or its last pause. */
  recover: (status: SandboxStatus): boolean => status === "error",
  /** Delete works from every state; a stopped sandbox has nothing left to delete. */
  destroy: (status: SandboxStatus): boolean => status !== "stopped",
} as const;
