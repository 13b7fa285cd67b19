/** Whether something else on this host uses addresses of the range that slots are to have. */
import { deadlines, WrennError } from "@wrenn/contract";
import { run } from "@wrenn/system";
import { z } from "zod";
import { parseCidr, parseIpv4 } from "./slot.ts";
import type { PlannedSlot, SlotPlan } from "./slot.ts";

const routesSchema = z.array(z.object({ dst: z.string(), dev: z.string().optional() }));
const addressesSchema = z.array(z.object({ ifname: z.string(), addr_info: z.array(z.object({ local: z.string() })) }));

/**
 * Two owners of one range would reach each other's sandboxes: the kernel takes the same address on two links without a word.
 * A wider route that contains the range, as clouds' private networks have, does no harm: slots' routes are narrower.
 * @throws WrennError `setup_failed` naming who has it, or the slot in use that was made in another range.
 */
export async function checkRange(plan: SlotPlan, inUse: readonly PlannedSlot[]): Promise<void> {
  const [links, routes] = await Promise.all([ipJson("address"), ipJson("route")]);
  const addresses = addressesSchema
    .parse(links)
    .flatMap(({ ifname, addr_info }) => addr_info.map(({ local }) => ({ range: local, link: ifname })));
  const routed = routesSchema.parse(routes).map(({ dst, dev }) => ({ range: dst, link: dev ?? "a route" }));
  for (const { range, link } of [...addresses, ...routed]) {
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

async function ipJson(object: "address" | "route"): Promise<unknown> {
  const { stdout } = await run("ip", ["-json", "-4", object, "show"], { timeoutMs: deadlines.networkCommand });
  return JSON.parse(stdout);
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
