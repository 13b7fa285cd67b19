import { describe, expect, test } from "vitest";
import { obstacleIn } from "./forwarding-obstacle.ts";

/** As `nft --json list ruleset` prints Docker's rules: the policy is drop, and only Docker's networks are let through. */
const docker = (extra: readonly unknown[] = []): unknown => ({
  nftables: [
    { metainfo: { version: "1.0.6", json_schema_version: 1 } },
    { table: { family: "ip", name: "filter", handle: 1 } },
    { chain: { family: "ip", table: "filter", name: "DOCKER-USER", handle: 1 } },
    {
      chain: {
        family: "ip",
        table: "filter",
        name: "FORWARD",
        handle: 2,
        type: "filter",
        hook: "forward",
        prio: 0,
        policy: "drop",
      },
    },
    {
      rule: {
        family: "ip",
        table: "filter",
        chain: "FORWARD",
        handle: 3,
        expr: [{ counter: { packets: 0, bytes: 0 } }, { jump: { target: "DOCKER-USER" } }],
      },
    },
    {
      rule: {
        family: "ip",
        table: "filter",
        chain: "FORWARD",
        handle: 4,
        expr: [{ match: { op: "==", left: { meta: { key: "iifname" } }, right: "docker0" } }, { accept: null }],
      },
    },
    ...extra,
  ],
});

const acceptFrom = (link: string, chain: string): unknown => ({
  rule: {
    family: "ip",
    table: "filter",
    chain,
    handle: 9,
    expr: [
      { match: { op: "==", left: { meta: { key: "iifname" } }, right: link } },
      { counter: { packets: 3, bytes: 180 } },
      { accept: null },
    ],
  },
});

describe("another firewall that keeps sandboxes from the Internet is noticed", () => {
  test("a policy of drop, as Docker sets it, with what to do about it", () => {
    expect(obstacleIn(docker(), "")).toMatch(
      /chain FORWARD of table ip filter.*iptables -I FORWARD -i 'wr-\+' -j ACCEPT/,
    );
    expect(obstacleIn(docker(), "12ab")).toContain("'wr12ab-+'");
  });

  test("a last rule that rejects the rest, as firewalld has it", () => {
    const chain = { family: "inet", table: "firewalld", name: "filter_FORWARD", hook: "forward", policy: "accept" };
    const rule = (expr: readonly unknown[]): unknown => ({
      rule: { family: "inet", table: "firewalld", chain: "filter_FORWARD", expr },
    });
    const established = rule([
      { match: { op: "in", left: { ct: { key: "state" } }, right: "established" } },
      { accept: null },
    ]);
    const reject = rule([
      { counter: { packets: 0, bytes: 0 } },
      { reject: { type: "icmpx", expr: "admin-prohibited" } },
    ]);
    expect(obstacleIn({ nftables: [{ chain }, established, reject] }, "")).toContain(
      "filter_FORWARD of table inet firewalld",
    );
    expect(obstacleIn({ nftables: [{ chain }, reject, established] }, "")).toBeNull();
  });

  test("not where slots are let through, in that chain or in one of its table", () => {
    expect(obstacleIn(docker([acceptFrom("wr-*", "FORWARD")]), "")).toBeNull();
    expect(obstacleIn(docker([acceptFrom("wr-*", "DOCKER-USER")]), "")).toBeNull();
  });

  test("letting another instance's slots through does not help", () => {
    expect(obstacleIn(docker([acceptFrom("wr-*", "FORWARD")]), "12ab")).not.toBeNull();
  });

  test("not where nothing drops: other hooks, other families, no rules, Wrenn's own", () => {
    const drop = (chain: object): unknown => ({
      nftables: [{ chain: { table: "t", name: "c", policy: "drop", ...chain } }],
    });
    expect(obstacleIn({ nftables: [] }, "")).toBeNull();
    expect(obstacleIn(drop({ family: "ip", hook: "input" }), "")).toBeNull();
    expect(obstacleIn(drop({ family: "ip6", hook: "forward" }), "")).toBeNull();
    expect(obstacleIn(drop({ family: "inet", hook: "forward", table: "wrenn_12ab" }), "")).toBeNull();
  });
});
