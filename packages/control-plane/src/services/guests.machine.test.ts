import { parseUuid } from "@wrenn/contract";
import type { SandboxId, TeamId } from "@wrenn/contract";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { TunnelPools } from "../hosts/tunnel-pools.ts";
import { createLog } from "@wrenn/system";
import { openDatabase } from "../store/database.ts";
import type { OpenDatabase } from "../store/database.ts";
import { eventually, TestServer } from "../testing/test-server.ts";
import { AccessTokens } from "./access-tokens.ts";
import { Activity } from "./activity.ts";
import { Guests } from "./guests.ts";
import type { Guest } from "./guests.ts";
import { SandboxTargets } from "./sandbox-targets.ts";

let server: TestServer;
let open: OpenDatabase;
let pools: TunnelPools;
let activity: Activity;
let id: SandboxId;
let teamId: TeamId;
let guests: Guests;
let guest: Guest;

beforeAll(async () => {
  server = await TestServer.start();
  open = openDatabase(server.databaseUrl, () => undefined);
  pools = new TunnelPools();
  id = parseUuid("sandbox", (await server.create()).uuid);
  const [row] = await server.query<{ team_id: string }>("SELECT team_id FROM sandboxes");
  teamId = parseUuid("team", row?.team_id ?? "");
});
beforeEach(async () => {
  const { store } = open;
  activity = new Activity(store, createLog({ level: "silent" }));
  const tokens = await AccessTokens.open(store);
  guests = new Guests({ targets: new SandboxTargets(store), tokens, pools, activity });
  guest = await guests.reach(teamId, id);
});
afterAll(async () => {
  await pools.close();
  await open.close();
  await server.stop();
});

/** The sandbox was used, and is not in use any more. */
async function untilReleased(): Promise<void> {
  await eventually(() => expect(activity.age(id)).toBeGreaterThan(0));
}

test("a sandbox is in use while a call waits for its answer", async () => {
  const answer = guest.fetch("/stream");
  await eventually(() => expect(activity.age(id)).toBe(0));
  await (await answer).body?.cancel();
  await untilReleased();
});

test("a sandbox is in use until an answer has been read to its end", async () => {
  const answer = await guest.fetch("/download?bytes=3000000");
  expect(activity.age(id)).toBe(0);
  expect((await answer.arrayBuffer()).byteLength).toBe(3_000_000);
  await untilReleased();
});

test.each<[string, () => Promise<unknown>]>([
  ["has come and nobody reads it", async () => guest.fetch("/")],
  ["has no body", async () => guest.fetch("/", { method: "HEAD" })],
  ["is cancelled in the middle", async () => (await guest.fetch("/download?bytes=99000000")).body?.cancel()],
  [
    "is cancelled by its reader",
    async () => {
      const reader = (await guest.fetch("/stream?line=1")).body?.getReader();
      await reader?.read();
      await reader?.cancel();
    },
  ],
  [
    "is aborted while it streams",
    async () => {
      const controller = new AbortController();
      const answer = await guest.fetch("/stream?line=1", { signal: controller.signal });
      controller.abort();
      await expect(answer.text()).rejects.toThrow("aborted");
    },
  ],
  [
    "is aborted before it comes",
    async () => {
      const controller = new AbortController();
      const answer = guest.fetch("/upload", { method: "POST", body: "x", signal: controller.signal });
      controller.abort();
      await expect(answer).rejects.toThrow("aborted");
    },
  ],
  ["breaks off", async () => expect((await guest.fetch("/truncate")).text()).rejects.toThrow("terminated")],
  ["never comes", async () => expect(guest.fetch("/reset")).rejects.toThrow("fetch failed")],
])("a sandbox is not in use any more once an answer %s", async (_what, call) => {
  expect(activity.age(id)).toBeUndefined();
  await call();
  await untilReleased();
});

test("a sandbox is in use until the last of several calls is over", async () => {
  const answers = await Promise.all([guest.fetch("/stream"), guest.fetch("/stream")]);
  await answers[0]?.body?.cancel();
  expect((await guest.fetch("/")).status).toBe(200);
  expect(activity.age(id)).toBe(0);
  await answers[1]?.body?.cancel();
  await untilReleased();
});

test("a call that only looks at a sandbox does not count as use", async () => {
  const looking = await guests.reach(teamId, id, { countsAsUse: false });
  const answer = await looking.fetch("/stream");
  expect(activity.age(id)).toBeUndefined();
  await answer.body?.cancel();
  expect((await looking.fetch("/")).status).toBe(200);
  expect(activity.age(id)).toBeUndefined();
});
