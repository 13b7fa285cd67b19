/** Every guest believes the same about its network, so that any frozen state fits any slot. */
export const guestNetwork = {
  address: "169.254.0.21",
  prefixLength: 30,
  gateway: "169.254.0.22",
  mac: "06:00:a9:fe:00:15",
  gatewayMac: "06:00:a9:fe:00:16",
} as const;

/** Request headers that name a sandbox and a port on the control plane's data plane. */
export const dataPlaneHeaders = { sandboxId: "wrenn-sandbox-id", port: "wrenn-sandbox-port" } as const;

/** Request headers that the guest agent takes from its callers. */
export const guestAgentHeaders = {
  /** `true` on `Connect`: the latest output of the process, up to 64 KiB, before what it prints from now on. */
  replayOutput: "wrenn-replay-output",
} as const;
