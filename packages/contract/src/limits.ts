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

export const metadataLimits = { maxEntries: 64, maxKeyLength: 128, maxValueLength: 1_024 } as const;

/** TCP port of the guest agent, as the E2B SDKs expect it. */
export const guestAgentPort = 49_983;

/** What a VM of given size needs on its host beyond guest memory: QEMU itself and its translation cache. */
export const engineMemoryOverheadMib = 384;

/** Never filled by sandboxes: what the host keeps free for itself. */
export const hostReserve = { memoryMib: 512, diskBytes: 1_073_741_824 } as const;

/** Milliseconds. A deadline that passes is an error of its own, never a silent wait. */
export const deadlines = {
  /** An emulated boot takes about 3 s alone and up to 20 s when ten boot at once on two cores. */
  guestBoot: 60_000,
  /** Whole create as the control plane sees it: two boot attempts and their clean-up. */
  createSandbox: 150_000,
  destroySandbox: 60_000,
  hostAgentCall: 15_000,
  guestInit: 10_000,
  engineCommand: 10_000,
  engineGreeting: 10_000,
  engineQuit: 5_000,
  /** A guest kernel reaches its init in about 1.5 s emulated; one that KVM cannot run hangs for ever. */
  kvmCanary: 15_000,
  subprocess: 60_000,
  tunnelDial: 5_000,
  databaseConnect: 5_000,
  databaseStatement: 30_000,
  serverStart: 60_000,
  serverStop: 30_000,
} as const;
