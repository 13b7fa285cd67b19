/**
 * The nftables table on the host: constant rules for all slots of an instance at once. Slots are known by the prefix of their
 * interfaces' names, so making or removing one changes nothing here, and none is ever without its rules.
 */
import { deadlines } from "@wrenn/contract";
import { run, runUnchecked } from "@wrenn/system";
import { blockedRanges } from "./blocked-ranges.ts";
import type { SlotPlan } from "./slot.ts";

/** Installs the table, or replaces the one there is in one transaction, so that no packet meets a host without it. */
export async function installHostTable(plan: SlotPlan): Promise<void> {
  await nft(`table inet ${plan.table}\ndelete table inet ${plan.table}\n${hostTable(plan)}`);
}

/** Installs the table unless it is there: firewalls that are reloaded flush everyone's (`nft flush ruleset`). */
export async function ensureHostTable(plan: SlotPlan): Promise<void> {
  const list = ["list", "table", "inet", plan.table];
  const { exitCode } = await runUnchecked("nft", list, { timeoutMs: deadlines.networkCommand });
  if (exitCode !== 0) await installHostTable(plan);
}

export async function removeHostTable(plan: SlotPlan): Promise<void> {
  // Naming the table first creates it where it is missing, so that deleting cannot fail for its absence.
  await nft(`table inet ${plan.table}\ndelete table inet ${plan.table}\n`);
}

async function nft(ruleset: string): Promise<void> {
  await run("nft", ["-f", "-"], { input: ruleset, timeoutMs: deadlines.networkCommand });
}

/*
 * The hooks come just before the usual filter priority. A drop here is final; an accept is not, for tables of others (Docker's,
 * a firewall's) still have their say: see forwarding-obstacle.ts.
 */
function hostTable(plan: SlotPlan): string {
  const slots = `"${plan.hostLinkPrefix}*"`;
  return `
table inet ${plan.table} {
  set blocked {
    type ipv4_addr
    flags interval
    elements = { ${blockedRanges.join(", ")} }
  }

  chain input {
    type filter hook input priority filter - 10; policy accept;
    iifname ${slots} goto to_host
  }

  # A slot may answer what the host asked of it, and begin nothing.
  chain to_host {
    ip saddr != ${plan.cidr} drop
    ct state established,related ct direction reply accept
    drop
  }

  # Root alone connects to slots: whoever else works on this host is no more entitled than a stranger. Packets without a socket are the
  # kernel's own answers, and match no user.
  chain output {
    type filter hook output priority filter - 10; policy accept;
    oifname ${slots} ct state new meta skuid != 0 drop
  }

  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    iifname ${slots} goto from_slot
    oifname ${slots} goto to_slot
  }

  # Blocked ranges come before all that is accepted. The host's own addresses are not forwarded to: see to_host.
  chain from_slot {
    meta nfproto != ipv4 drop
    ip saddr != ${plan.cidr} drop
    oifname ${slots} drop
    ct state invalid drop
    ip daddr @blocked drop
    accept
  }

  # From elsewhere only answers to what a slot began. The host's own connections to slots are not forwarded.
  chain to_slot {
    meta nfproto ipv4 ct state established,related accept
    drop
  }

  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${plan.cidr} oifname != ${slots} masquerade
  }
}
`;
}
