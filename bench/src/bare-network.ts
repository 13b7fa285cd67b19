/**
 * Where bare VMs that are all copies of one frozen guest, and so have the same address, run side by side: a namespace each, with a tap
 * inside and an address outside. Made ahead, outside of what is measured, as Wrenn's slots are.
 */
import { guestAgentPort, guestNetwork } from "@wrenn/contract";
import { run, runUnchecked, tryAll } from "@wrenn/system";

export interface BareNetwork {
  readonly namespacePath: string;
  readonly tap: string;
  /** Leads to the guest agent's port of the guest. */
  readonly address: string;
}

const tap = "tap0";
const uplink = "uplink";

export async function openBareNetworks(
  count: number,
): Promise<{ readonly networks: readonly BareNetwork[]; readonly close: () => Promise<void> }> {
  const indexes = Array.from({ length: count }, (_, index) => index);
  const close = async (): Promise<void> => {
    await tryAll(
      indexes.map((index) => ({
        name: `remove ${nameOf(index)}`,
        run: () => removeOne(nameOf(index)),
      })),
    );
  };
  const networks: BareNetwork[] = [];
  try {
    for (const index of indexes) networks.push(await openOne(index));
    return { networks, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function nameOf(index: number): string {
  return `wrenn-bare-${index}`;
}

/** RFC 2544's range for measurements, two addresses each. */
function addressOf(index: number, end: 0 | 1): string {
  return `198.18.${Math.floor(index / 128)}.${(index % 128) * 2 + end}`;
}

/** Both ends of the pair go at once; left to the namespace's death, they would linger. */
async function removeOne(name: string): Promise<void> {
  await runUnchecked("ip", ["link", "delete", name]);
  await runUnchecked("ip", ["netns", "delete", name]);
}

async function openOne(index: number): Promise<BareNetwork> {
  const name = nameOf(index);
  // Of a run that was killed.
  await removeOne(name);
  const address = addressOf(index, 1);
  const { gateway, gatewayMac, prefixLength, mac } = guestNetwork;
  await run("ip", ["-batch", "-"], {
    input: [
      `netns add ${name}`,
      `link add ${name} type veth peer name ${uplink} netns ${name}`,
      `address add ${addressOf(index, 0)}/31 dev ${name}`,
      `link set ${name} up`,
    ].join("\n"),
  });
  await run("ip", ["-netns", name, "-batch", "-"], {
    input: [
      `address add ${address}/31 dev ${uplink}`,
      `link set ${uplink} up`,
      `tuntap add dev ${tap} mode tap`,
      `link set ${tap} address ${gatewayMac} up`,
      `address add ${gateway}/${prefixLength} dev ${tap}`,
      `neighbour add ${guestNetwork.address} lladdr ${mac} dev ${tap} nud permanent`,
      `route add default via ${addressOf(index, 0)}`,
    ].join("\n"),
  });
  const inside = ["netns", "exec", name];
  await run("ip", [...inside, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]);
  await run("ip", [...inside, "nft", "-f", "-"], {
    input:
      "table ip bare { chain in { type nat hook prerouting priority dstnat; " +
      `iifname "${uplink}" tcp dport ${guestAgentPort} dnat to ${guestNetwork.address}; }; }\n`,
  });
  return { namespacePath: `/run/netns/${name}`, tap, address };
}
