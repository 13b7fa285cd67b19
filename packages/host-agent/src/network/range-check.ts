/** Whether something else on this host uses addresses of the range that slots are to have. */
import { networkInterfaces } from "node:os";
import { deadlines, WrennError } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { z } from "zod";
import { parseCidr, parseIpv4 } from "./slot.ts";
import type { PlannedSlot, SlotPlan } from "./slot.ts";

const routes = z.array(z.object({ dst: z.string(), dev: z.string().optional() }));

/**
 * Two owners of one range would reach each other's sandboxes: the kernel takes the same address on two links without a word.
 * A wider route that contains the range, as clouds' private networks have, does no harm: slots' routes are narrower.
 * @throws WrennError `setup_failed` naming who has it, or the slot in use that was made in another range.
 */
export async function checkRange(plan: SlotPlan, inUse: readonly PlannedSlot[]): Promise<void> {
  const { stdout } = await run("ip", ["-json", "-4", "route", "show"], { timeoutMs: deadlines.networkCommand });
  const addresses = Object.entries(networkInterfaces()).flatMap(([link, found]) =>
    (found ?? []).filter(({ family }) => family === "IPv4").map(({ address }) => ({ range: address, link })),
  );
  const used = routes.parse(JSON.parse(stdout)).map(({ dst, dev }) => ({ range: dst, link: dev ?? "a route" }));
  for (const { range, link } of [...addresses, ...used]) {
    if (plan.indexOfHostLink(link) === null && liesWithin(range, plan.cidr)) {
      throw new WrennError("setup_failed", {
        message: `The range of sandboxes' addresses, ${plan.cidr}, is in use on this host: ${link} has ${range}.`,
        suggestion: "Set WRENN_SLOT_CIDR to a private range that nothing else on this host uses.",
        details: { cidr: plan.cidr, link, range },
      });
    }
  }
  for (const slot of inUse) {
    const moved = addresses.find(({ link, range }) => link === slot.hostLink && range !== slot.hostAddress);
    if (moved !== undefined) {
      throw new WrennError("setup_failed", {
        message: `Slot ${slot.index}, which is in use, has ${moved.range} and not ${slot.hostAddress} of ${plan.cidr}.`,
        suggestion: "Give the host agent the WRENN_SLOT_CIDR it had when its sandboxes were created.",
        details: { cidr: plan.cidr, slot: slot.index },
      });
    }
  }
}

/** Whether an address or range lies within another range. What is not IPv4 does not. */
function liesWithin(inner: string, outer: string): boolean {
  const address = parseIpv4(inner);
  const innerRange = address === null ? parseCidr(inner) : { first: address, prefixLength: 32 };
  const outerRange = parseCidr(outer);
  if (innerRange === null || outerRange === null || innerRange.prefixLength < outerRange.prefixLength) return false;
  const size = 2 ** (32 - outerRange.prefixLength);
  return innerRange.first >= outerRange.first && innerRange.first < outerRange.first + size;
}
