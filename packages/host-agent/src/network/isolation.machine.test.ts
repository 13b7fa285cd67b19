/** B6: sandboxes cannot reach each other, the host, private or metadata addresses; they reach the Internet. */
import { createServer, connect } from "node:net";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { networkInterfaces } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { guestNetwork } from "@wrenn/contract";
import { pollUntil, run, runUnchecked, tryAll } from "@wrenn/system";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { SlotPool } from "./slot-pool.ts";
import type { Slot } from "./slot-pool.ts";
import {
  forbiddenOutside,
  hostOutsideAddress,
  makeOutside,
  outsideAddress,
  plugGuest,
  tracesOf,
} from "./testing/stand-ins.ts";
import type { GuestStandIn, Running, StandIn, Target } from "./testing/stand-ins.ts";

const network = { instance: "b6b6", cidr: "10.240.0.0/24", poolSize: 0 };
const outsidePort = 8080;
const guestPort = 7000;

let pool: SlotPool;
let outside: StandIn;
let outsideServer: Running;
let slots: [Slot, Slot];
let guests: [StandIn, StandIn];
/** The port on which the host listens on every address it has, loopback included. */
let hostPort: number;
let reachedHost = 0;

const cleanUps: { name: string; run(): Promise<void> }[] = [];

beforeAll(async () => {
  outside = await makeOutside(network);
  cleanUps.push({ name: "outside", run: () => outside.remove() });
  outsideServer = await outside.start("serve", String(outsidePort));

  pool = await SlotPool.open(network, []);
  cleanUps.push({ name: "pool", run: () => pool.close() });
  slots = [await pool.acquire(), await pool.acquire()];
  cleanUps.push(...slots.map((_slot, at) => ({ name: `slot ${at}`, run: () => pool.release(slots[at] ?? slots[0]) })));
  guests = [await plugGuest(slots[0]), await plugGuest(slots[1])];
  cleanUps.push(...guests.map((guest) => ({ name: guest.namespace, run: () => guest.remove() })));
  for (const guest of guests) await guest.start("serve", String(guestPort));

  const hostTcp = createServer((socket) => {
    reachedHost++;
    socket.end("reached");
  }).listen(0, "0.0.0.0");
  await once(hostTcp, "listening");
  const address = hostTcp.address();
  hostPort = address !== null && typeof address === "object" ? address.port : 0;
  const hostUdp = createSocket("udp4", (_payload, peer) => {
    reachedHost++;
    hostUdp.send("reached", peer.port, peer.address);
  }).bind(hostPort, "0.0.0.0");
  await once(hostUdp, "listening");
  cleanUps.push({
    name: "the host's servers",
    run: async () => {
      hostUdp.close();
      hostTcp.close();
      await once(hostTcp, "close");
    },
  });
});

afterAll(async () => {
  await tryAll(cleanUps.toReversed());
  const traces = await tracesOf(network.instance);
  if (traces.length > 0) throw new Error(`left behind: ${traces.join("; ")}`);
});

describe("what a sandbox reaches", () => {
  test("both sandboxes reach a server outside, which sees the host's address", async () => {
    for (const guest of guests) {
      expect(await guest.probe(both(outsideAddress, outsidePort))).toEqual([
        `answered ${hostOutsideAddress}`,
        `answered ${hostOutsideAddress}`,
      ]);
    }
  });

  test("the guest can ping its gateway and the outside", async () => {
    for (const address of [guestNetwork.gateway, outsideAddress]) {
      expect(await guests[0].traffic("ping", address)).toEqual([`answered ${address}`]);
    }
  });
});

describe("what reaches a sandbox", () => {
  test("the host reaches any port of a guest by its slot's address, and the guest always sees the same peer", async () => {
    for (const slot of slots) {
      const socket = connect(guestPort, slot.address);
      const [peer] = (await once(socket, "data")) as [Buffer];
      socket.destroy();
      expect(peer.toString().trim()).toBe(guestNetwork.gateway);
    }
  });

  test("a closed port is refused at once, not met with silence", async () => {
    await expect(once(connect(guestPort + 1, slots[0].address), "connect")).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
  });

  test("nor do the host's other users reach it", async () => {
    const dial = `exec 3<>/dev/tcp/${slots[0].address}/${guestPort}`;
    const asUser = async (uid: number): Promise<number> => {
      const user = ["--reuid", String(uid), "--regid", String(uid), "--clear-groups"];
      return (await runUnchecked("setpriv", [...user, "timeout", "2", "bash", "-c", dial])).exitCode;
    };
    expect(await asUser(0)).toBe(0);
    expect(await asUser(65_534)).not.toBe(0);
  });

  test("nothing beyond the host reaches it, though it knows the way", async () => {
    expect(await outside.probe(slots.flatMap(({ address }) => both(address, guestPort)))).toEqual(silence(4));
  });

  test("nor does it when the host's own rules have been flushed", async () => {
    await run("nft", ["delete", "table", "inet", `wrenn_${network.instance}`]);
    try {
      expect(await outside.probe(slots.flatMap(({ address }) => both(address, guestPort)))).toEqual(silence(4));
    } finally {
      await reopen();
    }
  });
});

describe("what a sandbox does not reach", () => {
  test("private, shared, link-local and metadata addresses, on which the host is answered", async () => {
    for (const address of forbiddenOutside) {
      const socket = connect(outsidePort, address);
      await once(socket, "data");
      socket.destroy();
    }
    const targets = forbiddenOutside.flatMap((address) => both(address, outsidePort));
    for (const guest of guests) expect(answered(await guest.probe(targets), targets)).toEqual([]);
  });

  test("it is told so, not met with silence", async () => {
    expect(await guests[0].probe([{ protocol: "tcp", host: "169.254.169.254", port: 80 }])).toEqual([
      "No route to host",
    ]);
  });

  test("private and metadata addresses stay out of reach when the host's own rules have been flushed", async () => {
    await run("nft", ["delete", "table", "inet", `wrenn_${network.instance}`]);
    try {
      const targets = forbiddenOutside.flatMap((address) => both(address, outsidePort));
      expect(answered(await guests[0].probe(targets), targets)).toEqual([]);
      expect(outsideServer.lines.filter((line) => !line.endsWith(hostOutsideAddress) && line !== "ready")).toEqual([]);
    } finally {
      await reopen();
    }
  });

  test("the other sandbox, by any of the addresses that lead to it", async () => {
    const targets = [
      ...both(slots[1].address, guestPort),
      ...both(slots[1].address, 22),
      ...both(hostSide(slots[1]), guestPort),
    ];
    expect(answered(await guests[0].probe(targets), targets)).toEqual([]);
    const back = [...both(slots[0].address, guestPort), ...both(hostSide(slots[0]), guestPort)];
    expect(answered(await guests[1].probe(back), back)).toEqual([]);
  });

  test("the host, by any of its addresses", async () => {
    reachedHost = 0;
    const addresses = Object.values(networkInterfaces())
      .flatMap((found) => found ?? [])
      .filter(({ family, internal }) => family === "IPv4" && !internal)
      .map(({ address }) => address);
    expect(addresses).toEqual(expect.arrayContaining([hostOutsideAddress, hostSide(slots[0]), hostSide(slots[1])]));
    const targets = addresses.flatMap((address) => both(address, hostPort));
    for (const guest of guests) expect(answered(await guest.probe(targets), targets)).toEqual([]);
    expect(reachedHost).toBe(0);
  });

  test("its own namespace, by the gateway's address or the slot's", async () => {
    const targets = [
      ...both(guestNetwork.gateway, 22),
      ...both(slots[0].address, guestPort),
      ...both("169.254.0.20", 80),
    ];
    expect(answered(await guests[0].probe(targets), targets)).toEqual([]);
  });

  test("the host's loopback, by frames addressed to it", async () => {
    reachedHost = 0;
    for (const destination of ["127.0.0.1", hostSide(slots[0]), hostOutsideAddress, "255.255.255.255"]) {
      await guests[0].traffic(
        "frame",
        guestNetwork.mac,
        guestNetwork.address,
        destination,
        String(hostPort),
        "to-loopback",
      );
    }
    await delay(200);
    expect(reachedHost).toBe(0);
  });
});

describe("a sandbox that forges", () => {
  test("only frames with its own MAC and address leave it", async () => {
    const [guest] = guests;
    const send = async (mac: string, source: string, payload: string): Promise<void> => {
      await guest.traffic("frame", mac, source, outsideAddress, String(outsidePort), payload);
    };
    await send(guestNetwork.mac, "203.0.113.77", "forged-public");
    await send(guestNetwork.mac, slots[1].address, "forged-neighbour");
    await send(guestNetwork.mac, slots[0].address, "forged-slot");
    await send(guestNetwork.mac, guestNetwork.gateway, "forged-gateway");
    await send(guestNetwork.mac, "127.0.0.1", "forged-loopback");
    await send("06:00:a9:fe:00:99", guestNetwork.address, "forged-mac");
    await send(guestNetwork.mac, guestNetwork.address, "honest");
    const arrived = await pollUntil(
      () => Promise.resolve(datagrams().some((line) => line.includes("honest")) ? datagrams() : null),
      { timeoutMs: 5_000 },
    );
    expect(arrived).toEqual([`datagram honest from ${hostOutsideAddress}`]);
  });

  test("IPv6 has no way in or out: no device of a slot has an address of it", async () => {
    const inside = await run("nsenter", [`--net=${slots[0].namespacePath}`, "ip", "-6", "address", "show"]);
    const host = await run("ip", ["-6", "address", "show", "dev", `wr${network.instance}-${slots[0].index}`]);
    expect([inside.stdout, host.stdout]).toEqual(["", ""]);
  });
});

test("connections in both directions live on while another process takes over", async () => {
  const inbound = connect(guestPort, slots[0].address);
  await once(inbound, "data");
  const outbound = guests[1].traffic("flow", outsideAddress, String(outsidePort), "2");
  for (let round = 0; round < 5; round++) {
    await delay(200);
    await reopen();
  }
  inbound.write("still here");
  const [echo] = (await once(inbound, "data")) as [Buffer];
  inbound.destroy();
  expect(echo.toString()).toBe("still here");
  const [, result] = await outbound;
  const [returned, sent] = (result ?? "").split(" of ").map(Number);
  expect(sent).toBeGreaterThan(50);
  expect(returned).toBe(sent);
});

describe("a guest that is restored in another slot", () => {
  let before: Slot;
  let after: Slot;
  let guest: GuestStandIn;

  beforeEach(async () => {
    [before, after] = [await pool.acquire(), await pool.acquire()];
    guest = await plugGuest(before);
  });
  afterEach(async () => {
    await guest.remove();
    await pool.release(before);
    await pool.release(after);
  });

  test("loses the connections it had made, at once", async () => {
    const talk = await guest.start("talk", outsideAddress, String(outsidePort));
    await guest.unplug();
    await guest.plug(after);
    expect(await lastWords(talk)).toBe("Connection reset by peer");
    // And makes new ones.
    expect(await guest.probe(both(outsideAddress, outsidePort))).toEqual([
      `answered ${hostOutsideAddress}`,
      `answered ${hostOutsideAddress}`,
    ]);
  });

  test("loses those that the host had made, at once", async () => {
    const talk = await guest.start("talk-to-caller", String(guestPort));
    const socket = connect(guestPort, before.address);
    socket.once("error", () => socket.destroy());
    await once(socket, "data");
    await guest.unplug();
    await guest.plug(after);
    expect(await lastWords(talk)).toBe("Connection reset by peer");
    socket.destroy();
  });

  async function lastWords(talk: Running): Promise<string | undefined> {
    await pollUntil(() => Promise.resolve(talk.lines.length > 1 ? true : null), { timeoutMs: 25_000 });
    return talk.lines.at(-1);
  }
});

test("a packet that is out of place does not end the connection that it belongs to", async () => {
  expect(await guests[0].traffic("stray", outsideAddress, String(outsidePort))).toEqual(["goes on"]);
});

test("the host's rules do not grow with slots", async () => {
  const table = async (): Promise<string> =>
    (await run("nft", ["list", "table", "inet", `wrenn_${network.instance}`])).stdout;
  const before = await table();
  const more = [await pool.acquire(), await pool.acquire(), await pool.acquire()];
  expect(await table()).toBe(before);
  for (const slot of more) await pool.release(slot);
  expect(await table()).toBe(before);
});

/** As another host agent does that finds these slots in use. */
async function reopen(): Promise<void> {
  const former = pool;
  pool = await SlotPool.open(
    network,
    slots.map(({ index }) => index),
  );
  slots = [pool.adopt(slots[0].index), pool.adopt(slots[1].index)];
  // Its slots are in use: nothing but its timers ends.
  await former.close();
}

function both(host: string, port: number): Target[] {
  return [
    { protocol: "tcp", host, port },
    { protocol: "udp", host, port },
  ];
}

/** The host's own address on a slot's veth: the even one of the /31. */
function hostSide(slot: Slot): string {
  const parts = slot.address.split(".").map(Number);
  return [...parts.slice(0, 3), (parts[3] ?? 0) - 1].join(".");
}

function silence(count: number): string[] {
  return Array.from({ length: count }, () => "silence");
}

/** The targets that an attempt got an answer from, or of which no outcome is known. */
function answered(outcomes: readonly string[], targets: readonly Target[]): Target[] {
  return targets.filter((_target, at) => outcomes[at]?.startsWith("answered") !== false);
}

function datagrams(): string[] {
  return outsideServer.lines.filter((line) => /forged|honest/.test(line));
}
