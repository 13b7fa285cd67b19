/** Where no sandbox may send anything, whatever else it may do: all that is not the public Internet. */
export const blockedRanges = [
  "0.0.0.0/8", // this network
  "10.0.0.0/8", // private; slots' own addresses lie here too
  "100.64.0.0/10", // carrier-grade NAT; some clouds' metadata and VPNs
  "127.0.0.0/8", // loopback
  "168.63.129.16/32", // Azure's host services, which trust whoever reaches them (WireServer)
  "169.254.0.0/16", // link-local; clouds' metadata
  "172.16.0.0/12", // private; container bridges
  "192.0.0.0/24", // IETF protocol assignments; some clouds' metadata
  "192.88.99.0/24", // relays of 6to4, withdrawn
  "192.168.0.0/16", // private
  "198.18.0.0/15", // benchmarking
  "224.0.0.0/4", // multicast
  "240.0.0.0/4", // reserved, and 255.255.255.255
] as const;
