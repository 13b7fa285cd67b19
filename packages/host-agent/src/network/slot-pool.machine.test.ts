/** S16: making a slot undoes what it did when a step fails; removal tries everything and reports every error. And the pool's rules. */
import { access, mkdtemp, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { intervals } from "@wrenn/contract";
import { findProgram, pollUntil, run, tryAll } from "@wrenn/system";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SlotPlan } from "./slot.ts";
import { SlotPool } from "./slot-pool.ts";
import type { NetworkConfig, Slot } from "./slot-pool.ts";
import { makeOutside, outsideAddress, plugGuest, tracesOf } from "./testing/stand-ins.ts";

const instance = "5105";
const cidr = "10.240.16.0/20";
/** The range of exactly three slots. */
const tinyCidr = "10.240.16.0/29";
const plan = new SlotPlan(cidr, instance);

let cleanUps: { name: string; run(): Promise<void> }[] = [];
let backgroundFailures: unknown[] = [];
const realPath = process.env["PATH"];

beforeEach(() => {
  cleanUps = [];
  backgroundFailures = [];
});

afterEach(async () => {
  process.env["PATH"] = realPath;
  await tryAll(cleanUps.toReversed());
  const traces = await tracesOf(instance);
  if (traces.length > 0) throw new Error(`left behind: ${traces.join("; ")}`);
});

async function open(config: Partial<NetworkConfig> = {}, inUse: readonly number[] = []): Promise<SlotPool> {
  const pool = await SlotPool.open(
    { instance, cidr, poolSize: 0, onBackgroundFailure: (error) => backgroundFailures.push(error), ...config },
    inUse,
  );
  cleanUps.push({ name: "pool", run: () => closeWithAll(pool) });
  return pool;
}

/** Slots that a test had in use are not in use any more when it ends. */
async function closeWithAll(pool: SlotPool): Promise<void> {
  for (const slot of lent.get(pool) ?? []) await pool.release(slot);
  await pool.close();
}

const lent = new WeakMap<SlotPool, Slot[]>();

async function acquire(pool: SlotPool, signal?: AbortSignal): Promise<Slot> {
  const slot = await pool.acquire(signal);
  lent.set(pool, [...(lent.get(pool) ?? []), slot]);
  return slot;
}

/** Leaves only these programs to be found, as on a machine that lacks the others. */
async function onlyPrograms(...names: readonly string[]): Promise<void> {
  const directory = await mkdtemp(path.join(tmpdir(), "programs-"));
  cleanUps.unshift({ name: directory, run: () => rm(directory, { recursive: true }) });
  for (const name of names) await symlink((await findProgram(name)) ?? name, path.join(directory, name));
  process.env["PATH"] = directory;
}

function allPrograms(): void {
  process.env["PATH"] = realPath;
}

async function full(pool: SlotPool, size: number): Promise<void> {
  const reached = await pollUntil(() => Promise.resolve(pool.stats().ready === size ? true : null), {
    timeoutMs: 10_000,
  });
  expect(reached).toBe(true);
}

describe("a slot that cannot be made whole is not made at all", () => {
  test.each([
    { missing: "nsenter", programs: ["ip", "nft", "sysctl"] },
    { missing: "sysctl", programs: ["ip", "nft", "nsenter"] },
    { missing: "nft", programs: ["ip", "nsenter", "sysctl"] },
    { missing: "ip", programs: ["nft", "nsenter", "sysctl"] },
  ])("without $missing", async ({ programs }) => {
    const pool = await open();
    await onlyPrograms(...programs);
    await expect(pool.acquire()).rejects.toMatchObject({ code: "network_setup_failed" });
    allPrograms();
    expect(await slotTraces()).toEqual([]);
    expect(pool.stats()).toMatchObject({ ready: 0, inUse: 0 });

    const next = await acquire(pool);
    await access(next.namespacePath);
  });

  test("when the link's name is taken after the namespace has been made", async () => {
    const pool = await open();
    // An alternative name takes the name without showing among the host's links.
    await run("ip", ["tuntap", "add", "dev", "alt-holder", "mode", "tap"]);
    cleanUps.push({ name: "alt-holder", run: async () => void (await run("ip", ["link", "delete", "alt-holder"])) });
    await run("ip", ["link", "property", "add", "dev", "alt-holder", "altname", plan.slot(1).hostLink]);

    const failure = await rejection(pool.acquire());
    expect(failure).toMatchObject({
      code: "network_setup_failed",
      cause: { message: expect.stringContaining("File exists") },
    });
    expect(await slotTraces()).toEqual([]);
    expect((await acquire(pool)).index).toBe(2);
  });

  test("when the caller gives up meanwhile", async () => {
    const pool = await open();
    for (const delayMs of [0, 3, 8, 15, 25]) {
      const giveUp = new AbortController();
      const acquired = pool.acquire(giveUp.signal);
      setTimeout(() => giveUp.abort(), delayMs);
      // One that was made before the caller gave up is the caller's.
      const outcome = await acquired.then(
        (slot) => pool.release(slot),
        (error: unknown) => error,
      );
      expect(outcome === undefined || (outcome instanceof Error && outcome.name === "AbortError")).toBe(true);
      expect(await slotTraces()).toEqual([]);
    }
    expect(pool.stats().inUse).toBe(0);
  });

  test("what stands in its way is removed, for what has our names is ours", async () => {
    const pool = await open();
    await run("ip", ["netns", "add", plan.slot(1).namespace]);
    await expect(pool.acquire()).rejects.toMatchObject({ code: "network_setup_failed" });
    expect((await acquire(pool)).index).toBe(2);
    const removed = await pollUntil(
      async () => ((await slotTraces()).some((line) => /-1\b/.test(line)) ? null : true),
      {
        timeoutMs: 5_000,
      },
    );
    expect(removed).toBe(true);
  });
});

describe("removal", () => {
  test("tries everything and reports every failure; the slot is not lent again before it is gone", async () => {
    const pool = await open({ cidr: tinyCidr });
    const slot = await pool.acquire();
    await onlyPrograms("nft");
    const failure = await rejection(pool.release(slot));
    expect(failure).toMatchObject({ code: "network_setup_failed" });
    expect(String(failure)).toContain("delete link");
    expect(String(failure)).toContain("delete namespace");
    expect(pool.stats()).toEqual({ ready: 0, inUse: 0, quarantined: 1 });

    allPrograms();
    const others = [await pool.acquire(), await pool.acquire()];
    expect(others.map(({ index }) => index)).not.toContain(slot.index);
    for (const other of others) await pool.release(other);
    await pool.release(slot);
    expect(pool.stats()).toEqual({ ready: 0, inUse: 0, quarantined: 0 });
    expect(await slotTraces()).toEqual([]);
  });

  test("goes on after one failure, and again later by itself", async () => {
    const pool = await open();
    const slot = await pool.acquire();
    // A second mount on the name outlives `ip netns delete`, which removes only the topmost.
    await run("mount", ["--bind", slot.namespacePath, slot.namespacePath]);
    const failure = await rejection(pool.release(slot));
    expect(String(failure)).toContain("delete namespace");
    expect(String(failure)).not.toContain("delete link");
    expect((await slotTraces()).filter((line) => line.includes("wr5105"))).toEqual([]);

    // Anything that wakes the background takes the quarantined slot along.
    const other = await pool.acquire();
    await pool.release(other);
    const gone = await pollUntil(() => Promise.resolve(pool.stats().quarantined === 0 ? true : null), {
      timeoutMs: 5_000,
    });
    expect(gone).toBe(true);
    expect(await slotTraces()).toEqual([]);
  });

  test("is harmless when everything has gone already", async () => {
    const pool = await open();
    const slot = await pool.acquire();
    await run("ip", ["netns", "delete", slot.namespace]);
    await pool.release(slot);
    expect(pool.stats()).toEqual({ ready: 0, inUse: 0, quarantined: 0 });
  });

  test("a second release of a slot does not take it from its next tenant", async () => {
    const pool = await open({ cidr: tinyCidr });
    const first = await pool.acquire();
    await Promise.all([pool.release(first), pool.release(first)]);
    for (let index = 2; index <= 3; index++) await pool.release(await pool.acquire());
    const next = await acquire(pool);
    expect(next.index).toBe(first.index);
    await pool.release(first);
    await access(next.namespacePath);
    expect(pool.stats().inUse).toBe(1);
  });
});

describe("the pool", () => {
  test("keeps slots ready, lends one without running anything, and makes another", async () => {
    const pool = await open({ poolSize: 2 });
    await full(pool, 2);
    await onlyPrograms();
    const slot = await acquire(pool);
    expect(pool.stats()).toMatchObject({ ready: 1, inUse: 1 });
    await access(slot.namespacePath);
    await pollUntil(() => Promise.resolve(backgroundFailures.length > 0 ? true : null), { timeoutMs: 5_000 });
    allPrograms();
    await pool.release(slot);
    await full(pool, 2);
  });

  test("reports what fails in the background, and goes on when it can", async () => {
    const pool = await open({ poolSize: 1 });
    await full(pool, 1);
    await onlyPrograms("ip");
    await acquire(pool);
    const reported = await pollUntil(() => Promise.resolve(backgroundFailures[0] ?? null), { timeoutMs: 5_000 });
    expect(reported).toMatchObject({ code: "network_setup_failed" });
    allPrograms();
    await acquire(pool);
    await full(pool, 1);
  });

  test.each([0, 1, 2])("of %i lends one more than it has ready", async (poolSize) => {
    const pool = await open({ poolSize });
    await full(pool, poolSize);
    const slots = await Promise.all(Array.from({ length: poolSize + 1 }, () => acquire(pool)));
    expect(new Set(slots.map(({ index }) => index)).size).toBe(poolSize + 1);
    for (const slot of slots) await access(slot.namespacePath);
  });

  test.each([0, 2, 5])("of %i lends every slot of a range of three, then says that there is none", async (poolSize) => {
    const pool = await open({ cidr: tinyCidr, poolSize });
    const slots = [await acquire(pool), await acquire(pool), await acquire(pool)];
    expect(new Set(slots.map(({ index }) => index))).toEqual(new Set([1, 2, 3]));
    await expect(pool.acquire()).rejects.toMatchObject({ code: "no_capacity", status: 503 });
    for (const slot of slots.slice(0, 1)) await pool.release(slot);
    expect((await acquire(pool)).index).toBe(slots[0]?.index);
  });

  test("never gives an index twice to those who ask at once", async () => {
    const pool = await open({ poolSize: 2 });
    const slots = await Promise.all(Array.from({ length: 8 }, () => acquire(pool)));
    expect(new Set(slots.map(({ address }) => address)).size).toBe(8);
    expect(new Set(slots.map(({ uid }) => uid)).size).toBe(8);
  });

  test("puts the host's rules back when another program has flushed them", async () => {
    await open();
    const table = async (): Promise<string> => (await run("nft", ["list", "table", "inet", plan.table])).stdout;
    const before = await table();
    await run("nft", ["delete", "table", "inet", plan.table]);
    const back = await pollUntil(() => table().catch(() => null), {
      timeoutMs: intervals.slotRules + 5_000,
      intervalMs: 250,
    });
    expect(back).toBe(before);
  });

  test("closes with work under way, and takes no more", async () => {
    const pool = await open({ poolSize: 4 });
    const acquired = pool.acquire().then(
      (slot) => pool.release(slot),
      (error: unknown) => error,
    );
    await pool.close();
    await acquired;
    await expect(pool.acquire()).rejects.toMatchObject({ code: "shutting_down" });
    expect(await slotTraces()).toEqual([]);
  });
});

describe("opening after a process that was killed", () => {
  test("keeps what is in use, removes all else of its instance whatever its state, and nothing of another", async () => {
    const killed = await SlotPool.open({ instance, cidr, poolSize: 2 }, []);
    await full(killed, 2);
    const kept = await killed.acquire();
    await full(killed, 2);

    const [bare, half, linkOnly, beyond] = [plan.slot(21), plan.slot(22), plan.slot(23), plan.names(99_999)];
    await run("ip", ["-batch", "-"], {
      input: `${[
        `netns add ${bare.namespace}`,
        `netns add ${half.namespace}`,
        `link add ${half.hostLink} type veth peer name uplink netns ${half.namespace}`,
        `tuntap add dev ${linkOnly.hostLink} mode tap`,
        `netns add ${beyond.namespace}`,
        "netns add wrenn-5106-1",
        "tuntap add dev wr5106-1 mode tap",
      ].join("\n")}\n`,
    });
    cleanUps.push({
      name: "other instance",
      run: async () =>
        void (await run("ip", ["-batch", "-"], { input: "netns delete wrenn-5106-1\nlink delete wr5106-1\n" })),
    });

    const pool = await open({}, [kept.index]);
    const adopted = pool.adopt(kept.index);
    expect(adopted).toEqual(kept);
    const left = (await slotTraces()).map((line) => line.split(/[\s@]/)[0]);
    expect(new Set(left)).toEqual(new Set([`wr${instance}-${kept.index}`, kept.namespace]));
    await access("/run/netns/wrenn-5106-1");
    await access("/sys/class/net/wr5106-1");
    expect(pool.stats()).toEqual({ ready: 0, inUse: 1, quarantined: 0 });
    await killed.close();
    expect(await slotTraces()).toHaveLength(2);
    await pool.release(adopted);
  });

  test("copes with a slot in use of which nothing is left, as after a reboot", async () => {
    const pool = await open({}, [7]);
    const slot = pool.adopt(7);
    expect(slot.address).toBe("10.240.16.15");
    await pool.release(slot);
    expect(pool.stats().inUse).toBe(0);
  });

  test("adopts nothing that it was not told of", async () => {
    const pool = await open({}, [7]);
    expect(() => pool.adopt(8)).toThrow(expect.objectContaining({ code: "internal" }));
    await pool.release(pool.adopt(7));
  });

  test("closing leaves slots in use, and the rules they need, to the next", async () => {
    const first = await SlotPool.open({ instance, cidr, poolSize: 1 }, []);
    const slot = await first.acquire();
    await full(first, 1);
    await first.close();
    await access(slot.namespacePath);
    await run("nft", ["list", "table", "inet", plan.table]);
    expect((await slotTraces()).filter((line) => line.startsWith("wrenn-"))).toHaveLength(1);

    const second = await open({}, [slot.index]);
    await second.release(second.adopt(slot.index));
  });
});

describe("opening refuses", () => {
  test("a range of which another link has an address", async () => {
    await run("ip", ["-batch", "-"], {
      input: "tuntap add dev range-holder mode tap\naddress add 10.240.17.9/32 dev range-holder\n",
    });
    cleanUps.push({ name: "holder", run: async () => void (await run("ip", ["link", "delete", "range-holder"])) });
    await expect(open()).rejects.toMatchObject({ code: "setup_failed", details: { link: "range-holder" } });
    expect(await tracesOf(instance)).toEqual([]);
  });

  test("a range other than that of a slot in use", async () => {
    const pool = await open();
    const slot = await acquire(pool);
    await expect(SlotPool.open({ instance, cidr: "10.240.32.0/20", poolSize: 0 }, [slot.index])).rejects.toMatchObject({
      code: "setup_failed",
      details: { slot: slot.index },
    });
    await access(slot.namespacePath);
  });

  test("a host without nft, leaving nothing", async () => {
    await onlyPrograms("ip", "nsenter", "sysctl");
    await expect(SlotPool.open({ instance, cidr, poolSize: 1 }, [])).rejects.toMatchObject({
      code: "dependency_missing",
    });
    allPrograms();
    expect(await tracesOf(instance)).toEqual([]);
  });
});

describe("a tenant and the next", () => {
  test("the tap admits the slot's user and no other", async () => {
    const pool = await open();
    const slot = await acquire(pool);
    const guest = await plugGuest(slot);
    await guest.remove();
    await expect(plugGuest({ ...slot, uid: slot.uid + 2 })).rejects.toThrow("Operation not permitted");
    expect((await stat("/dev/net/tun")).mode & 0o666).toBe(0o666);
  });

  test("a slot used again knows nothing of its former tenant, whose flows reach nobody", async () => {
    const outside = await makeOutside({ instance, cidr });
    cleanUps.push({ name: "outside", run: () => outside.remove() });
    await outside.start("serve", "8080");
    const pool = await open({ cidr: tinyCidr });

    const first = await acquire(pool);
    const former = await plugGuest(first);
    try {
      await former.traffic("burst", outsideAddress, "8080", "5000");
      expect(Number(await former.traffic("listen", "5000", "0.5"))).toBeGreaterThan(3);
    } finally {
      await former.remove();
    }
    expect(await flowsOf(first)).not.toBe("");
    await pool.release(first);

    for (let index = 2; index <= 3; index++) await pool.release(await acquire(pool));
    const again = await acquire(pool);
    expect(again.address).toBe(first.address);
    expect(await flowsOf(again)).toBe("");
    const next = await plugGuest(again);
    try {
      // The outside goes on sending to the former tenant's flow for two seconds in all.
      expect(await next.traffic("listen", "5000", "0.6")).toEqual(["0"]);
    } finally {
      await next.remove();
    }
  });
});

/** What there is of slots: all traces but the table and what tests put around them. */
async function slotTraces(): Promise<string[]> {
  return (await tracesOf(instance)).filter((line) => line.startsWith("wrenn-") || line.startsWith("wr"));
}

async function flowsOf(slot: Slot): Promise<string> {
  return (await run("nsenter", [`--net=${slot.namespacePath}`, "cat", "/proc/net/nf_conntrack"])).stdout;
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => new Error("it was not rejected"),
    (error: unknown) => error,
  );
}
