/**
 * What the network tests put around slots: guests and an outside, each a network namespace with real sockets. A stand-in guest
 * does on the tap what QEMU does, as the slot's user; only the virtual machine behind it is left out.
 */
import path from "node:path";
import { guestNetwork } from "@wrenn/contract";
import { pollUntil, run, runUnchecked } from "@wrenn/system";
import type { Slot } from "../slot.ts";

const traffic = path.join(import.meta.dirname, "traffic.py");

/** An instance and a range of its own for each test file, so that nothing of a real Wrenn on this machine is touched. */
export interface TestNetwork {
  readonly instance: string;
  readonly cidr: string;
}

export interface Target {
  readonly protocol: "tcp" | "udp";
  readonly host: string;
  readonly port: number;
}

/** A program of traffic.py that runs until it is stopped. */
export interface Running {
  readonly lines: readonly string[];
  stop(): Promise<void>;
}

/** A machine of the tests: a network namespace. */
export class StandIn {
  readonly namespace: string;
  readonly #running: Running[] = [];

  readonly #hostLink: string | undefined;

  /** @param hostLink the host's end of the veth that joins this machine to it, if one does. */
  constructor(namespace: string, hostLink?: string) {
    this.namespace = namespace;
    this.#hostLink = hostLink;
  }

  async ip(...commands: readonly string[]): Promise<void> {
    await run("ip", ["-netns", this.namespace, "-batch", "-"], { input: `${commands.join("\n")}\n` });
  }

  /** Runs a command of traffic.py in the namespace, to its end. */
  async traffic(...args: readonly string[]): Promise<string[]> {
    const { stdout } = await run("nsenter", this.#command(args));
    return stdout.trim().split("\n");
  }

  /** What each attempt met: "answered <address the peer saw>", "silence", or the kernel's words. */
  probe(targets: readonly Target[]): Promise<string[]> {
    return this.traffic("probe", ...targets.flatMap(({ protocol, host, port }) => [protocol, host, String(port)]));
  }

  /** Starts a command of traffic.py in the namespace; resolves when it says that it is ready. */
  async start(...args: readonly string[]): Promise<Running> {
    const running = await startInBackground("nsenter", this.#command(args));
    this.#running.push(running);
    return running;
  }

  async remove(): Promise<void> {
    for (const running of this.#running) await running.stop();
    // A link is removed by hand: one that goes down with its namespace lingers for a moment on the host.
    if (this.#hostLink !== undefined) await run("ip", ["link", "delete", this.#hostLink]);
    await run("ip", ["netns", "delete", this.namespace]);
  }

  #command(args: readonly string[]): string[] {
    return [`--net=/run/netns/${this.namespace}`, "python3", traffic, ...args];
  }
}

/** A stand-in for a VM. Its sockets outlive the tap that it is plugged to, as frozen memory does. */
export class GuestStandIn extends StandIn {
  #wire: Running | undefined;

  /** As a VM that starts, or is restored, in this slot; configured as the guest agent configures a real one. */
  async plug(slot: Slot): Promise<void> {
    this.#wire = await this.start(
      "attach",
      slot.namespacePath,
      slot.tap,
      String(slot.uid),
      `/run/netns/${this.namespace}`,
    );
    await this.ip(
      "link set lo up",
      `link set eth0 address ${guestNetwork.mac} up`,
      `address add ${guestNetwork.address}/${guestNetwork.prefixLength} dev eth0`,
      `route add default via ${guestNetwork.gateway}`,
    );
  }

  async unplug(): Promise<void> {
    await this.#wire?.stop();
    this.#wire = undefined;
  }
}

/** A guest on a slot's tap. */
export async function plugGuest(slot: Slot): Promise<GuestStandIn> {
  const guest = new GuestStandIn(`guest-of-${slot.namespace}`);
  await run("ip", ["netns", "add", guest.namespace]);
  try {
    await guest.plug(slot);
    return guest;
  } catch (error) {
    await guest.remove();
    throw error;
  }
}

/** Addresses of the outside that a sandbox must never reach; a server answers the host on each of them. */
export const forbiddenOutside = [
  "10.250.0.10",
  "100.64.250.10",
  "168.63.129.16",
  "169.254.169.254",
  "172.16.250.10",
  "192.0.0.192",
  "192.88.99.10",
  "192.168.250.10",
  "198.18.250.10",
] as const;

export const outsideAddress = "203.0.113.10";
export const hostOutsideAddress = "203.0.113.1";

/** A network beyond the host: a public address, and private and metadata ones. */
export async function makeOutside(network: TestNetwork): Promise<StandIn> {
  const link = `wo${network.instance}`;
  const outside = new StandIn(`outside-${network.instance}`, link);
  await run("ip", ["-batch", "-"], {
    input: `${[
      `netns add ${outside.namespace}`,
      `link add ${link} type veth peer name eth0 netns ${outside.namespace}`,
      `address add ${hostOutsideAddress}/24 dev ${link}`,
      `link set ${link} up`,
    ].join("\n")}\n`,
  });
  await outside.ip(
    "link set lo up",
    `address add ${outsideAddress}/24 dev eth0`,
    "link set eth0 up",
    ...forbiddenOutside.map((address) => `address add ${address}/32 dev lo`),
    `route add default via ${hostOutsideAddress}`,
  );
  await run("ip", ["-batch", "-"], {
    input: `${forbiddenOutside.map((address) => `route add ${address}/32 via ${outsideAddress}`).join("\n")}\n`,
  });
  return outside;
}

/** Everything on this host that carries the instance's name: namespaces, links, tables. */
export async function tracesOf(instance: string): Promise<string[]> {
  const listings = await Promise.all([
    run("ip", ["-brief", "netns", "list"]),
    run("ip", ["-brief", "link", "show"]),
    run("ip", ["route", "show"]),
    run("nft", ["list", "tables"]),
  ]);
  return listings.flatMap(({ stdout }) => stdout.split("\n")).filter((line) => line.includes(instance));
}

async function startInBackground(program: string, args: readonly string[]): Promise<Running> {
  const stopping = new AbortController();
  const lines: string[] = [];
  let ended = false;
  const end = runUnchecked(program, args, {
    signal: stopping.signal,
    timeoutMs: 600_000,
    onLine: (line) => lines.push(line),
  }).then(
    () => (ended = true),
    () => (ended = true),
  );
  const ready = await pollUntil(() => Promise.resolve(lines.includes("ready") || ended ? true : null), {
    timeoutMs: 15_000,
  });
  if (ready === null || ended) {
    stopping.abort();
    await end;
    throw new Error(`${args.join(" ")} did not start: ${lines.join("\n")}`);
  }
  return {
    lines,
    stop: async () => {
      stopping.abort();
      await end;
    },
  };
}
