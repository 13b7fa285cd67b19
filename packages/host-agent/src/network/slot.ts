/** What a slot is, and how its index alone gives its names, addresses and user id. No I/O. */
import { createHash } from "node:crypto";
import path from "node:path";
import { WrennError } from "@wrenn/contract";
import { defaultWrennDir } from "@wrenn/system";

/** A network namespace with a veth pair to the host and a tap, lent to one sandbox at a time. */
export interface Slot {
  readonly index: number;
  /** The namespace's name, as `ip netns` knows it. */
  readonly namespace: string;
  readonly namespacePath: string;
  /** The tap's name inside the namespace. */
  readonly tap: string;
  /** The engine's user and group id. The tap lets only this user attach, and no two slots of a host share one. */
  readonly uid: number;
  /** IPv4 address by which the host, and nothing but the host, reaches the guest. */
  readonly address: string;
}

/** What there is of a slot on its host, by name. Other than addresses, names do not depend on the range. */
export interface SlotNames {
  readonly namespace: string;
  readonly namespacePath: string;
  /** The host's end of the veth pair. */
  readonly hostLink: string;
}

/** A slot with what only this folder needs to know of it. */
export interface PlannedSlot extends Slot, SlotNames {
  /** The host's address on that end: the peer of `address` in a /31. */
  readonly hostAddress: string;
}

/** Inside every namespace the devices have these names. */
export const uplink = "uplink";
export const tap = "tap0";

/** Where iproute2 keeps the namespaces it has named. */
export const namespaceDirectory = "/run/netns";

/**
 * User ids of engines begin here: above what distributions, systemd and container runtimes hand out (they stay below
 * 2^30), and below 2^31, from which on some programs take ids for negative numbers.
 */
const firstUid = 0x4000_0000;

/** A slot takes two addresses. The first pair stays unused: it begins with the network's own address. */
const addressesPerSlot = 2;

const prefixLengths = { min: 8, max: 29 } as const;

/** The names and addresses of all slots of one Wrenn instance on a host. */
export class SlotPlan {
  readonly cidr: string;
  readonly instance: string;
  /** Indexes run from 1 to this. */
  readonly lastIndex: number;
  readonly #firstAddress: number;

  /**
   * @param cidr the IPv4 range slots take their addresses from, /8 to /29.
   * @param instance tells apart the instances of one host: "" or four hex digits.
   * @throws WrennError `setup_failed` when either is malformed.
   */
  constructor(cidr: string, instance: string) {
    const range = parseCidr(cidr);
    if (range === null || range.prefixLength < prefixLengths.min || range.prefixLength > prefixLengths.max) {
      throw new WrennError("setup_failed", {
        message: `"${cidr}" is not an IPv4 range of /${prefixLengths.min} to /${prefixLengths.max} that begins at its own network address.`,
        suggestion:
          "Set WRENN_SLOT_CIDR to a private range that nothing else on this host uses, such as 10.231.0.0/16.",
      });
    }
    if (!/^([0-9a-f]{4})?$/.test(instance)) {
      throw new WrennError("setup_failed", { message: `"${instance}" is not an instance tag: "" or four hex digits.` });
    }
    this.cidr = cidr;
    this.instance = instance;
    this.#firstAddress = range.first;
    this.lastIndex = 2 ** (32 - range.prefixLength) / addressesPerSlot - 1;
  }

  slot(index: number): PlannedSlot {
    if (!Number.isInteger(index) || index < 1 || index > this.lastIndex) {
      throw new WrennError("network_setup_failed", {
        message: `Slot ${index} is not in ${this.cidr}, which has slots 1 to ${this.lastIndex}.`,
        suggestion: "Give the host agent the WRENN_SLOT_CIDR it had when its sandboxes were created.",
      });
    }
    const hostAddress = this.#firstAddress + index * addressesPerSlot;
    const address = hostAddress + 1;
    return {
      ...this.names(index),
      index,
      tap,
      uid: firstUid + (address & 0xff_ffff),
      address: formatIpv4(address),
      hostAddress: formatIpv4(hostAddress),
    };
  }

  /** The names of any index, also of one that is not in this range. */
  names(index: number): SlotNames {
    const namespace = `${this.#namespacePrefix}${index}`;
    return {
      namespace,
      namespacePath: path.join(namespaceDirectory, namespace),
      hostLink: `${this.hostLinkPrefix}${index}`,
    };
  }

  /** The index that a namespace's name stands for, or null when it is not one of this instance. */
  indexOfNamespace(name: string): number | null {
    return indexAfter(this.#namespacePrefix, name);
  }

  /** The index that the name of a veth's host end stands for, or null when it is not one of this instance. */
  indexOfHostLink(name: string): number | null {
    return indexAfter(this.hostLinkPrefix, name);
  }

  /** All interfaces of this instance on the host begin with this, and no other instance's do. At most 15 with the index. */
  get hostLinkPrefix(): string {
    return `wr${this.instance}-`;
  }

  /** The nftables table on the host. */
  get table(): string {
    return this.instance === "" ? "wrenn" : `wrenn_${this.instance}`;
  }

  get #namespacePrefix(): string {
    return this.instance === "" ? "wrenn-" : `wrenn-${this.instance}-`;
  }
}

/** The tag of the instance that lives in this WRENN_DIR: none for the default directory, else a hash of its path. */
export function instanceTag(wrennDir: string): string {
  const resolved = path.resolve(wrennDir);
  return resolved === defaultWrennDir ? "" : createHash("sha256").update(resolved).digest("hex").slice(0, 4);
}

/**
 * The range an instance takes when WRENN_SLOT_CIDR is not set: 10.231.0.0/16 for the default one, one of the 256 /20
 * ranges from 10.232.0.0 to 10.247.255.255 for any other, so that two instances of a host rarely meet.
 */
export function defaultSlotCidr(instance: string): string {
  if (instance === "") return "10.231.0.0/16";
  const hash = Number.parseInt(instance, 16);
  return `10.${232 + ((hash >> 4) & 0xf)}.${(hash & 0xf) * 16}.0/20`;
}

/** First address and prefix length of a range written `a.b.c.d/n`; null when malformed or with host bits set. */
export function parseCidr(cidr: string): { first: number; prefixLength: number } | null {
  const [addressText, prefixText, ...rest] = cidr.split("/");
  const first = parseIpv4(addressText ?? "");
  if (first === null || rest.length > 0 || prefixText === undefined || !/^\d{1,2}$/.test(prefixText)) return null;
  const prefixLength = Number(prefixText);
  if (prefixLength > 32 || first % 2 ** (32 - prefixLength) !== 0) return null;
  return { first, prefixLength };
}

export function parseIpv4(text: string): number | null {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255)) return null;
  return parts.reduce((address, part) => address * 256 + Number(part), 0);
}

function formatIpv4(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join(".");
}

function indexAfter(prefix: string, name: string): number | null {
  const digits = name.startsWith(prefix) ? name.slice(prefix.length) : "";
  return /^[1-9]\d{0,7}$/.test(digits) ? Number(digits) : null;
}
