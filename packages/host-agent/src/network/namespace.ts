/** Making and removing one slot: the namespace, its devices, routes and rules, and the veth pair to the host. */
import { access, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { deadlines, guestNetwork, WrennError } from "@wrenn/contract";
import { isMissingFile, run, runSteps, tryAll } from "@wrenn/system";
import { blockedRanges } from "./blocked-ranges.ts";
import { namespaceDirectory, tap, uplink } from "./slot.ts";
import type { PlannedSlot, SlotNames, SlotPlan } from "./slot.ts";

const linkDirectory = "/sys/class/net";

/**
 * A connection of which one direction has ended is forgotten after this long a silence, not after the kernel's one or two minutes:
 * a command that has all its input may think for longer, and its answer would meet a connection that nobody knows.
 */
const halfClosedTimeouts = ["fin_wait", "close_wait"] as const;
const halfClosedSeconds = 3_600;

/**
 * Makes a slot, or nothing: when a step fails, all that was made is removed again.
 * @throws WrennError `network_setup_failed` with the failing step's error as its cause.
 */
export async function makeNamespace(slot: PlannedSlot, signal?: AbortSignal): Promise<void> {
  try {
    await runSteps([
      { name: "see that nothing is in the way", run: () => refuseLeftovers(slot) },
      {
        name: "create namespace and veth pair",
        run: () => createPair(slot, signal),
        // Deleting a namespace or its pair takes along all that later steps put into them.
        undo: () => removeNamespace(slot),
      },
      { name: "configure the devices inside", run: () => configureInside(slot, signal) },
      // Rules load the kernel's connection tracking, which has settings only then.
      { name: "install the rules inside", run: () => installRules(slot, signal) },
      { name: "route inside", run: () => enableRouting(slot, signal) },
    ]);
  } catch (cause) {
    if (signal?.aborted === true) throw cause;
    throw new WrennError("network_setup_failed", {
      message: `Slot ${slot.index} could not be made.`,
      details: { slot: slot.index, ...(cause instanceof WrennError ? cause.details : {}) },
      cause,
    });
  }
}

/** Removes whatever there is of a slot. Tries everything, and throws one error that names all that failed. */
export async function removeNamespace(slot: SlotNames): Promise<void> {
  await tryAll([
    {
      name: `delete link ${slot.hostLink}`,
      // The namespace's own end goes at once too; left to the namespace's death, it would linger for a while.
      run: () => ensureGone(path.join(linkDirectory, slot.hostLink), ["link", "delete", slot.hostLink]),
    },
    {
      name: `delete namespace ${slot.namespace}`,
      run: () => ensureGone(slot.namespacePath, ["netns", "delete", slot.namespace]),
    },
  ]);
}

/** The indexes of all slots of which there is anything on this host, whole or not. */
export async function findSlots(plan: SlotPlan): Promise<number[]> {
  const indexes = [
    ...(await entries(namespaceDirectory)).map((name) => plan.indexOfNamespace(name)),
    ...(await entries(linkDirectory)).map((name) => plan.indexOfHostLink(name)),
  ].filter((index) => index !== null);
  return [...new Set(indexes)];
}

async function refuseLeftovers(slot: SlotNames): Promise<void> {
  for (const place of [slot.namespacePath, path.join(linkDirectory, slot.hostLink)]) {
    if (await exists(place)) {
      throw new WrennError("network_setup_failed", { message: `${place} exists already.`, details: { place } });
    }
  }
}

async function createPair(slot: PlannedSlot, signal: AbortSignal | undefined): Promise<void> {
  await ipBatch(
    [
      `netns add ${slot.namespace}`,
      `link add ${slot.hostLink} type veth peer name ${uplink} netns ${slot.namespace}`,
      `address add ${slot.hostAddress}/31 dev ${slot.hostLink}`,
      `link set ${slot.hostLink} up`,
    ],
    [],
    signal,
  );
  await disableIpv6(slot.hostLink);
}

async function configureInside(slot: PlannedSlot, signal: AbortSignal | undefined): Promise<void> {
  await ipBatch(
    [
      `address add ${slot.address}/31 dev ${uplink}`,
      `link set ${uplink} up`,
      `tuntap add dev ${tap} mode tap user ${slot.uid}`,
      `link set ${tap} address ${guestNetwork.gatewayMac} up`,
      `address add ${guestNetwork.gateway}/${guestNetwork.prefixLength} dev ${tap}`,
      // Fixed, so that a guest cannot make its gateway look for it elsewhere, and no packet waits for an ARP answer.
      `neighbour add ${guestNetwork.address} lladdr ${guestNetwork.mac} dev ${tap} nud permanent`,
      `route add default via ${slot.hostAddress}`,
    ],
    ["-netns", slot.namespace],
    signal,
  );
}

async function enableRouting(slot: PlannedSlot, signal: AbortSignal | undefined): Promise<void> {
  const values = [
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.accept_source_route=0",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv6.conf.all.disable_ipv6=1",
    // A connection is known from its first packet on or not at all: one from before a restore is not picked up in its middle.
    "net.netfilter.nf_conntrack_tcp_loose=0",
    // What is invalid is answered with a reset, which nothing but an unknown connection may meet: not a late packet of a live one.
    "net.netfilter.nf_conntrack_tcp_be_liberal=1",
    ...halfClosedTimeouts.map((name) => `net.netfilter.nf_conntrack_tcp_timeout_${name}=${halfClosedSeconds}`),
  ];
  // -e: a kernel without IPv6 has no such key.
  await inNamespace(slot, "sysctl", ["-e", "-q", "-w", ...values], undefined, signal);
}

async function installRules(slot: PlannedSlot, signal: AbortSignal | undefined): Promise<void> {
  await inNamespace(slot, "nft", ["-f", "-"], namespaceRules(slot), signal);
}

/*
 * The blocked ranges are on the host too. Here they are refused with an answer, so that a program in the guest fails at once
 * rather than after a minute, and they still hold when someone flushes the host's rules.
 */
function namespaceRules(slot: PlannedSlot): string {
  return `
# Whatever leaves the guest is its own IPv4 or ARP, or does not get in: no IPv6, no other source, no other MAC.
table netdev guard {
  chain ingress {
    type filter hook ingress device "${tap}" priority filter; policy drop;
    ether saddr != ${guestNetwork.mac} drop
    ether type arp arp saddr ether ${guestNetwork.mac} arp saddr ip ${guestNetwork.address} accept
    ether type ip ip saddr ${guestNetwork.address} accept
  }
}

table ip slot {
  set blocked {
    type ipv4_addr
    flags interval
    elements = { ${blockedRanges.join(", ")} }
  }

  # Only the host's end of the pair is let in to the guest: not what others route here, nor packets of a former tenant's flows.
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "${uplink}" ip saddr ${slot.hostAddress} ip daddr ${slot.address} dnat to ${guestNetwork.address}
  }

  # The guest always sees the same peer; the host always sees the slot's address.
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "${tap}" snat to ${guestNetwork.gateway}
    oifname "${uplink}" ip saddr ${guestNetwork.address} snat to ${slot.address}
  }

  chain forward {
    type filter hook forward priority filter; policy drop;
    # What NAT does not know would leave untranslated. A connection from before a restore ends at once.
    iifname "${tap}" ct state invalid meta l4proto tcp reject with tcp reset
    ct state invalid drop
    iifname "${tap}" oifname "${uplink}" ct state established,related ct direction reply accept
    iifname "${tap}" oifname "${uplink}" ip daddr @blocked reject with icmp type admin-prohibited
    iifname "${tap}" oifname "${uplink}" accept
    iifname "${uplink}" oifname "${tap}" ct state established,related accept
    iifname "${uplink}" oifname "${tap}" ct status dnat accept
  }

  # The namespace itself answers nobody but the guest: when it pings its gateway, and when it goes on talking on a connection
  # that the host had made before a restore.
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "${tap}" ip daddr ${guestNetwork.gateway} ct state invalid meta l4proto tcp reject with tcp reset
    iifname "${tap}" ip daddr ${guestNetwork.gateway} icmp type echo-request limit rate 20/second accept
  }
}
`;
}

/** Runs the ip command that removes what a path stands for, unless it has gone, or goes by itself meanwhile. */
async function ensureGone(place: string, removal: readonly string[]): Promise<void> {
  if (!(await exists(place))) return;
  try {
    await ip(removal);
  } catch (error) {
    if (await exists(place)) throw error;
  }
}

async function ip(args: readonly string[]): Promise<void> {
  await run("ip", args, { timeoutMs: deadlines.networkCommand });
}

/** Several ip commands in one process; the first that fails ends them. */
async function ipBatch(
  commands: readonly string[],
  options: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  await run("ip", [...options, "-batch", "-"], {
    input: `${commands.join("\n")}\n`,
    timeoutMs: deadlines.networkCommand,
    ...(signal === undefined ? {} : { signal }),
  });
}

async function inNamespace(
  slot: PlannedSlot,
  program: string,
  args: readonly string[],
  input: string | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  await run("nsenter", [`--net=${slot.namespacePath}`, program, ...args], {
    timeoutMs: deadlines.networkCommand,
    ...(input === undefined ? {} : { input }),
    ...(signal === undefined ? {} : { signal }),
  });
}

/** Takes a link's link-local address too. A kernel without IPv6 has no such file. */
async function disableIpv6(link: string): Promise<void> {
  try {
    await writeFile(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, "1");
  } catch (error) {
    if (!isMissingFile(error)) throw error;
  }
}

async function exists(file: string): Promise<boolean> {
  try {
    await access(file);
    return true;
  } catch (error) {
    if (isMissingFile(error)) return false;
    throw error;
  }
}

async function entries(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (isMissingFile(error)) return [];
    throw error;
  }
}
