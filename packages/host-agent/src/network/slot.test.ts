import { describe, expect, test } from "vitest";
import { defaultSlotCidr, instanceTag, SlotPlan } from "./slot.ts";

describe("a slot's names and addresses follow from its index", () => {
  test("two addresses of the range, the odd one for the guest", () => {
    expect(new SlotPlan("10.231.0.0/16", "").slot(200)).toEqual({
      index: 200,
      namespace: "wrenn-200",
      namespacePath: "/run/netns/wrenn-200",
      hostLink: "wr-200",
      tap: "tap0",
      hostAddress: "10.231.1.144",
      address: "10.231.1.145",
      uid: 0x4000_0000 + 231 * 65_536 + 256 + 145,
    });
  });

  test("every index has addresses and a user id of its own, none outside the range", () => {
    const plan = new SlotPlan("10.240.0.0/24", "0a0b");
    const slots = Array.from({ length: plan.lastIndex }, (_none, at) => plan.slot(at + 1));
    expect(slots).toHaveLength(127);
    expect(new Set(slots.flatMap(({ address, hostAddress }) => [address, hostAddress])).size).toBe(254);
    expect(new Set(slots.map(({ uid }) => uid)).size).toBe(127);
    expect(slots.at(-1)?.address).toBe("10.240.0.255");
  });

  test.each([0, -1, 1.5, 128, Number.NaN])("there is no slot %s in a /24", (index) => {
    expect(() => new SlotPlan("10.240.0.0/24", "").slot(index)).toThrow(
      expect.objectContaining({ code: "network_setup_failed" }),
    );
  });

  test("the longest link name fits the kernel's 15 characters", () => {
    const plan = new SlotPlan("10.0.0.0/8", "ffff");
    expect(plan.slot(plan.lastIndex).hostLink.length).toBeLessThanOrEqual(15);
  });
});

describe("instances of one host", () => {
  test("one never takes another's namespace or link for its own", () => {
    const main = new SlotPlan("10.231.0.0/16", "");
    const other = new SlotPlan("10.231.0.0/16", "1234");
    expect(main.indexOfNamespace("wrenn-7")).toBe(7);
    expect(main.indexOfHostLink("wr-7")).toBe(7);
    expect(other.indexOfNamespace("wrenn-1234-7")).toBe(7);
    expect(main.indexOfNamespace("wrenn-1234-7")).toBeNull();
    expect(main.indexOfHostLink("wr1234-7")).toBeNull();
    expect(other.indexOfNamespace("wrenn-1234")).toBeNull();
    expect(other.indexOfHostLink("wr-7")).toBeNull();
    expect(main.indexOfNamespace("wrenn-007")).toBeNull();
  });

  test("the default directory has no tag, any other has one of four hex digits and a range of its own", () => {
    expect(instanceTag("/var/lib/wrenn/")).toBe("");
    expect(instanceTag("/srv/wrenn")).toMatch(/^[0-9a-f]{4}$/);
    expect(instanceTag("/srv/wrenn")).not.toBe(instanceTag("/srv/other"));
    expect(defaultSlotCidr("")).toBe("10.231.0.0/16");
    expect(defaultSlotCidr("12ab")).toBe("10.242.176.0/20");
    for (const tag of ["0000", "ffff", "12ab"]) expect(() => new SlotPlan(defaultSlotCidr(tag), tag)).not.toThrow();
  });
});

test.each([
  "",
  "10.231.0.0",
  "10.231.0.1/16",
  "10.231.0.0/30",
  "10.0.0.0/7",
  "300.1.0.0/16",
  "::/16",
  "10.231.0.0/16/1",
  "10.231.0.0/x",
])("%j is refused as a range", (cidr) => {
  expect(() => new SlotPlan(cidr, "")).toThrow(expect.objectContaining({ code: "setup_failed" }));
});

test.each(["1", "12345", "WXYZ", "12 4"])("%j is refused as an instance", (instance) => {
  expect(() => new SlotPlan("10.231.0.0/16", instance)).toThrow(expect.objectContaining({ code: "setup_failed" }));
});
