/** That what nft really prints is understood: rules are installed in a network namespace of their own and read back. */
import { run } from "@wrenn/system";
import { afterEach, beforeEach, expect, test } from "vitest";
import { forwardingObstacle, obstacleIn } from "./forwarding-obstacle.ts";

const namespace = "wrenn-obstacle-test";

beforeEach(async () => {
  await run("ip", ["netns", "add", namespace]);
});

afterEach(async () => {
  await run("ip", ["netns", "delete", namespace]);
});

async function inNamespace(args: readonly string[], input?: string): Promise<string> {
  const command = [`--net=/run/netns/${namespace}`, "nft", ...args];
  return (await run("nsenter", command, input === undefined ? {} : { input })).stdout;
}

async function obstacle(): Promise<string | null> {
  return obstacleIn(JSON.parse(await inNamespace(["--json", "list", "ruleset"])), "12ab");
}

test("a drop policy on forwarded traffic is an obstacle until slots are let through", async () => {
  expect(await obstacle()).toBeNull();
  await inNamespace(
    ["-f", "-"],
    "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n iifname docker0 accept\n }\n}\n",
  );
  expect(await obstacle()).toContain("chain FORWARD of table ip filter");
  await inNamespace(["-f", "-"], 'insert rule ip filter FORWARD iifname "wr12ab-*" counter accept\n');
  expect(await obstacle()).toBeNull();
});

test("a chain that ends by rejecting everything is an obstacle", async () => {
  await inNamespace(
    ["-f", "-"],
    "table inet firewalld {\n chain filter_FORWARD {\n type filter hook forward priority filter + 10;\n" +
      " ct state established accept\n log counter reject with icmpx admin-prohibited\n }\n}\n",
  );
  expect(await obstacle()).toContain("filter_FORWARD of table inet firewalld");
});

test("this host is looked at without an error", async () => {
  const answer = await forwardingObstacle("12ab");
  expect(answer === null || answer.includes("FORWARD")).toBe(true);
});
