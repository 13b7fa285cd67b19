/** Every range, size and deadline that users or other parts of Wrenn can meet. Units are in the names. */

/** What one sandbox may ask for. Defaults are those of a create that names nothing. */
export const sandboxLimits = {
  vcpus: { min: 1, max: 32, default: 1 },
  /** 128 MiB is the least in which Debian's kernel, the guest agent and a Python process fit. */
  memoryMib: { min: 128, max: 65_536, default: 512 },
  /** The least is the size of the built-in template's file system. */
  diskMib: { min: 5_120, max: 102_400, default: 5_120 },
} as const;

export const environmentLimits = {
  /** The kernel's own bound on one argument or variable (MAX_ARG_STRLEN) is 128 KiB. */
  maxBytes: 131_072,
  maxEntries: 1_000,
} as const;

/** How long a sandbox may be idle, in seconds: up to 30 days. Without one it is never idle for too long. */
export const sandboxTimeoutSeconds = { min: 1, max: 2_592_000 } as const;

/** Characters of an Idempotency-Key. */
export const idempotencyKeyLength = { min: 1, max: 255 } as const;

export const metadataLimits = { maxEntries: 64, maxKeyLength: 128, maxValueLength: 1_024 } as const;

/** TCP port of the guest agent, as the E2B SDKs expect it. */
export const guestAgentPort = 49_983;

/** What a VM of given size needs on its host beyond guest memory: QEMU itself and its translation cache. */
export const engineMemoryOverheadMib = 384;

/** Never filled by sandboxes: what the host keeps free for itself. */
export const hostReserve = { memoryMib: 512, diskBytes: 1_073_741_824 } as const;

/** How much more a host promises than it has. Memory is never promised twice; processors are shared well. */
export const overcommit = { vcpus: 16 } as const;

/** How many sandboxes one page of a list has. */
export const pageLimits = { min: 1, max: 200, default: 100 } as const;

/** What the control plane takes from one connection or request before it refuses. */
export const httpLimits = { headerBytes: 32_768, bodyBytes: 1_048_576, connections: 10_000 } as const;

export const execLimits = {
  /** How long a command may run whose output is collected. What takes longer is for `exec/stream` or `processes`. */
  timeoutSeconds: { max: 3_600, default: 60 },
  /** Bytes kept of each of standard output and standard error; what comes after them is counted and dropped. */
  outputBytes: { min: 0, max: 16_777_216, default: 1_048_576 },
  /** The kernel takes no longer argument or variable (MAX_ARG_STRLEN). */
  argumentBytes: 131_072,
  arguments: 4_096,
} as const;

export const processLimits = {
  /** Seconds that a started process may live; 0 in no timeout at all. */
  timeoutSeconds: { max: 2_592_000 },
  tagLength: 128,
} as const;

/** Columns and rows of a terminal, as struct winsize has room for. */
export const terminalLimits = { min: 1, max: 65_535, defaultCols: 80, defaultRows: 24 } as const;

export const fileLimits = {
  /** PATH_MAX, without the closing NUL. */
  pathBytes: 4_095,
  listDepth: { min: 1, max: 64, default: 1 },
} as const;

/** Bytes of a sandbox's console that one call answers; the next goes on from there. */
export const consoleLimits = { answerBytes: 262_144 } as const;

/** WebSockets of the public API. */
export const streamLimits = {
  /** One message in either direction; what is longer is sent in pieces. */
  messageBytes: 1_048_576,
  /**
   * What the server may have sent and the client not yet taken before the server stops reading from the guest. It is taken as a
   * whole before more is read, and where others follow the same process it must be within half a minute: at 9 KB/s.
   */
  unsentBytes: 262_144,
} as const;

/** How many copies one request makes of a sandbox. */
export const forkCount = { min: 1, max: 50, default: 1 } as const;

/** What a host does with the layers of frozen states. */
export const generationLimits = {
  /** An image spread over more layers or extents than this is folded into one in the background. */
  layers: 8,
  extents: 32_768,
  /** What the golden snapshots of one host may take up; the least recently used go. */
  goldenBytes: 10_737_418_240,
} as const;

/** Milliseconds. A deadline that passes is an error of its own, never a silent wait. */
export const deadlines = {
  /** An emulated boot takes about 3 s alone and up to 20 s when ten boot at once on two cores. */
  guestBoot: 60_000,
  /** Whole create as the control plane sees it: two boot attempts and their clean-up. */
  createSandbox: 150_000,
  destroySandbox: 60_000,
  /** Writing all memory of the largest sandbox at 500 MB/s takes over two minutes. */
  pauseSandbox: 180_000,
  resumeSandbox: 120_000,
  snapshotSandbox: 180_000,
  forkSandbox: 240_000,
  /** Starting again what died: a boot with one more attempt, or a resume. */
  recoverSandbox: 150_000,
  deleteSnapshot: 60_000,
  /** Before a freeze the guest writes back what its page cache holds, as far as it gets in this time. */
  guestSync: 5_000,
  /** Reading, comparing and writing a guest's memory, while it stands still. */
  memoryCapture: 150_000,
  memoryFold: 600_000,
  memoryVerify: 300_000,
  /** From the pager's start until it listens. */
  pagerStart: 10_000,
  hostAgentCall: 15_000,
  /** Whether a host agent is there at all, for a health check. */
  hostProbe: 2_000,
  /** Of many emulated guests that come at once, each takes seconds. */
  guestInit: 30_000,
  engineCommand: 10_000,
  /** An engine's start takes 50 ms, and more than ten seconds on busy processors that are themselves emulated. */
  engineGreeting: 30_000,
  engineQuit: 5_000,
  /** An engine that stops a guest writes what that has given to its disk, as far as the host has not yet: some GB at 100 MB/s. */
  engineFreeze: 60_000,
  /** An engine that loads a kernel of some 50 MB before it answers, or a frozen state; one in an emulated KVM takes its time. */
  engineLoad: 60_000,
  /** A guest that was running when the host agent came back; a busy emulated one takes seconds. */
  guestAdoption: 20_000,
  /**
   * A guest kernel reaches its init in 1 s with KVM, and in a minute where KVM is itself emulated and the machine is busy. One that prints
   * and then hangs for ever costs this once per boot of the host.
   */
  kvmCanary: 90_000,
  /** A kernel that KVM can run prints its first line within a fraction of this; one that it cannot mostly prints nothing. */
  kvmCanarySilence: 10_000,
  subprocess: 60_000,
  /**
   * One call of ip, nft or sysctl takes milliseconds, and the first one seconds where the kernel has to load modules and processors are
   * emulated; longer than this and the kernel's network lock is stuck.
   */
  networkCommand: 30_000,
  /** One call of dmsetup or losetup takes milliseconds, and longer where it waits for what is being written. */
  diskCommand: 30_000,
  tunnelDial: 5_000,
  /** The database's part of `/metrics`, which is answered without it when this has passed. */
  metricsQuery: 2_000,
  /** One look of a guest at its own use of memory and processors. */
  guestMetrics: 10_000,
  /** A whole tunnel as the control plane sees it: the host agent's own dial of `tunnelDial`, and its answer. */
  tunnelOpen: 10_000,
  /** How long a guest may stay silent once its client has ended its direction: that client may be gone. */
  tunnelHalfClosed: 300_000,
  /** No byte in either direction of a data-plane request for so long ends it. */
  dataPlaneIdle: 3_600_000,
  /** How long a guest may take to answer a call about files, or be silent in the middle of one. Large trees take a while. */
  guestFiles: 120_000,
  /** How long a client may send nothing of a file that it uploads. */
  uploadIdle: 300_000,
  /** How long the rest of a body is still read once its request was refused: a client that is busy sending may not see why otherwise. */
  refusedBody: 10_000,
  /** How long a guest may be silent about a watched directory; it is told to say every `watchKeepAlive` that it is there. */
  watchSilence: 60_000,
  /** The head of a request, and the body of a request to the API itself. */
  requestHead: 15_000,
  requestBody: 30_000,
  /** One round of the reconciler, destroys it retries included. */
  reconcileRound: 180_000,
  databaseConnect: 5_000,
  databaseStatement: 30_000,
  /** How long a host agent that stops lets creations finish. */
  hostAgentDrain: 20_000,
  serverStart: 60_000,
  /** How long a host agent that starts waits for its first golden snapshot, which is then made in the background; less than `serverStart`. */
  warmStart: 30_000,
  serverStop: 30_000,
  /** What requests under way may still take when the server stops; must leave time within `serverStop`. */
  serverDrain: 10_000,
  /** How long a client tries to join its command again: a host agent's restart with adoption takes a few seconds. */
  commandReconnect: 30_000,
  /** How long a WebSocket may stay open before it has said who it is and what it wants. */
  streamOpening: 10_000,
  /** Silence after which a WebSocket is asked whether it is still there, and how long its answer may take. */
  streamPing: 30_000,
  streamPong: 20_000,
  /** How long WebSockets may take to say goodbye when the server stops. */
  streamGoodbye: 2_000,
  /** One call of a guest agent that waits for nothing but the agent itself; a busy emulated guest takes seconds. */
  guestCall: 30_000,
  /** How long the reason is looked for why a connection into a sandbox broke: a dead VM is seen within a second or two. */
  sandboxLoss: 10_000,
  /** What a terminal's processes may take to end after a hangup before they are killed. */
  terminalHangup: 5_000,
  /** How long a create with an Idempotency-Key is remembered. */
  idempotencyKey: 86_400_000,
  /** What a command may still take to end after an interrupt before its sandbox is destroyed. */
  commandInterrupt: 5_000,
} as const;

/** Milliseconds between rounds of background work, and how long something may be believed without looking again. */
export const intervals = {
  reconcile: 5_000,
  /** How long what a host agent has said of its machine is believed when a sandbox is placed. */
  hostFacts: 1_000,
  /** A host not heard of for so long is `unreachable` and its sandboxes are `missing`. */
  hostSilence: 90_000,
  /** A revoked key stops working within this time on every replica. */
  apiKeyCache: 5_000,
  apiKeyLastUsed: 60_000,
  /** Rounds of writing down which sandboxes were used, and of looking for those that were idle for too long. */
  sandboxActivity: 1_000,
  sandboxTimeouts: 2_000,
  /** After a server has started or found its database again, no sandbox times out before its timeout, or this, has passed. */
  sandboxTimeoutsResume: 300_000,
  /** Rounds of forgetting the Idempotency-Keys that are old enough. */
  idempotencyKeys: 600_000,
  /**
   * How long keys and places that are known already are still believed while the database does not answer. A server that
   * has been silent for longer lets nobody into a sandbox any more, so no other has to wait for what it knows.
   */
  withoutDatabase: 300_000,
  /** Where a sandbox is and whether it may be reached. */
  sandboxTargetCache: 1_000,
  /** How long a connection to a sandbox that has just been started is kept for its first request. */
  tunnelAhead: 5_000,
  /** What `/metrics` says of the database's rows is at most this old. */
  metricsCache: 3_000,
  /** Connections into a sandbox that nothing used for so long are closed. */
  tunnelIdle: 60_000,
  /** A watch on which nothing happens says so this often, so that nobody on the way takes it for dead. */
  watchKeepAlive: 20_000,
  /** Between two looks for frozen states that nothing needs any more. */
  garbage: 2_000,
  /** A network slot that could not be made or removed is tried again after this. */
  slotRetry: 15_000,
  /** After the last slot was taken, others are made ready this much later: a restored guest has answered by then, or most of many. */
  slotRefill: 1_500,
  /** The host's rules for slots are put back within this time after another program flushed them. */
  slotRules: 10_000,
} as const;
