/** What sandboxes' networks are made of: taps, namespaces, rules and routing. */
import { access, constants, readFile } from "node:fs/promises";
import { forwardingObstacle, instanceTag } from "@wrenn/host-agent";
import { type Layout, run, runUnchecked } from "@wrenn/system";
import { type Examination, failed, ok, type Outcome, warning } from "./check.ts";

const needsRoot = warning("only root can see this", "Run the same command with sudo.");

export const networkExaminations: readonly Examination[] = [
  {
    name: "tun",
    look: async () =>
      access("/dev/net/tun", constants.R_OK).then(
        () => ok("/dev/net/tun"),
        () =>
          failed("/dev/net/tun is missing or cannot be opened", "modprobe tun, or allow the device to this container"),
      ),
  },
  { name: "namespaces", look: asRoot(checkNamespaces) },
  { name: "nftables", look: asRoot(checkNftables) },
  { name: "routing", look: checkRouting },
  { name: "firewall", look: asRoot(checkFirewall) },
];

function asRoot(look: (layout: Layout) => Promise<Outcome>): (layout: Layout) => Promise<Outcome> {
  return async (layout) => (process.geteuid?.() === 0 ? look(layout) : needsRoot);
}

/** Makes one and lets it go, for nothing else tells whether the kernel and the container allow it. */
async function checkNamespaces(): Promise<Outcome> {
  await run("ip", ["-Version"]);
  const { exitCode, stderr } = await runUnchecked("unshare", ["--net", "true"]);
  return exitCode === 0
    ? ok("network namespaces can be made")
    : failed(
        `no network namespace can be made: ${stderr.trim()}`,
        "Give this container CAP_SYS_ADMIN, or run Wrenn on the host itself.",
      );
}

async function checkNftables(): Promise<Outcome> {
  const { exitCode, stdout, stderr } = await runUnchecked("nft", ["list", "tables"]);
  const tables = stdout.split("\n").filter((line) => line !== "").length;
  return exitCode === 0
    ? ok(`usable; ${tables} tables`)
    : failed(`nft does not work: ${stderr.trim()}`, "modprobe nf_tables, and give this container CAP_NET_ADMIN");
}

async function checkRouting(): Promise<Outcome> {
  const forwards = (await readFile("/proc/sys/net/ipv4/ip_forward", "utf8")).trim() !== "0";
  return ok(forwards ? "the kernel routes" : "off; the host agent turns it on at its start");
}

async function checkFirewall(layout: Layout): Promise<Outcome> {
  const obstacle = await forwardingObstacle(instanceTag(layout.root));
  return obstacle === null
    ? ok("nothing keeps sandboxes from the Internet")
    : warning(obstacle, "Let what the finding names through, or accept that sandboxes have no Internet.");
}
