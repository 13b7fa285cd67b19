/** Requests and files at the edge of what can be: the agent is one process, and none of them may end it. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { startGuestAgent, type GuestAgent } from "./harness.ts";
import { observe, shell } from "./process-events.ts";

let agent: GuestAgent;
beforeEach(async () => {
  agent = await startGuestAgent();
});
afterEach(async () => {
  const alive = await agent.fetch("/health").then(
    () => true,
    () => false,
  );
  await agent.stop();
  if (!alive) throw new Error("the guest agent is gone");
});

async function run(script: string): Promise<string> {
  const { end, stdout } = await observe(agent.process().start(shell(script)));
  expect(end).toMatchObject({ exitCode: 0 });
  return stdout;
}

test("a keepalive interval longer than clocks reach", async () => {
  const headers = { "Keepalive-Ping-Interval": "18446744073709551615" };
  expect((await observe(agent.process({ headers }).start(shell("echo fine")))).stdout).toBe("fine\n");
});

test("a file from beyond the year 9999 is served, described and listed", async () => {
  await run("mkdir /mnt/d && echo x >/mnt/d/far && touch -d '300000-01-01' /mnt/d/far");
  const response = await agent.fetch("/files?path=/mnt/d/far");
  expect([response.headers.get("last-modified"), await response.text()]).toEqual([
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "x\n",
  ]);
  const { entries } = await agent.filesystem().listDir({ path: "/mnt/d" });
  expect(entries.map((entry) => entry.modifiedTime?.seconds)).toEqual([253_402_300_799n]);
});

test("a path of as many directories as the kernel takes is made, listed, watched and removed", async () => {
  const deep = `/mnt${"/d".repeat(2000)}`;
  const client = agent.filesystem();
  await client.makeDir({ path: deep });
  const { entries } = await client.listDir({ path: "/mnt", depth: 5000 });
  expect(entries.map((entry) => entry.path.length)).toEqual(Array.from({ length: 2000 }, (_, level) => 6 + 2 * level));
  const { watcherId } = await client.createWatcher({ path: "/mnt", recursive: true });
  await client.makeDir({ path: `${deep}/new` });
  const seen = new Set<number>();
  const made = async () => {
    for (const event of (await client.getWatcherEvents({ watcherId })).events) seen.add(event.name.length);
    return [...seen];
  };
  await expect.poll(made).toEqual([`${deep}/new`.length - "/mnt/".length]);
  await client.remove({ path: "/mnt/d" });
  expect(await run("ls /mnt")).toBe("");
});

test("a tree deeper than any path can name is removed, links in it are not followed", async () => {
  const nest = `for (1..3000) { symlink("$ENV{HOME}/kept", "link"); mkdir("d") && chdir("d") || die }`;
  await run(`mkdir ~/kept ~/deep && touch ~/kept/file && cd ~/deep && perl -e '${nest}'`);
  await agent.filesystem().remove({ path: "deep" });
  expect(await run("ls ~ ~/kept")).toBe("/home/user:\nkept\n\n/home/user/kept:\nfile\n");
});

test("null in JSON is a field that is not set", async () => {
  const post = (method: string, message: unknown) =>
    agent.fetch(`/filesystem.Filesystem/${method}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(message),
    });
  const created = await post("CreateWatcher", { path: "/mnt", recursive: null, includeEntry: null });
  expect(created.status).toBe(200);
  const { watcherId } = z.object({ watcherId: z.string() }).parse(await created.json());
  expect((await post("RemoveWatcher", { watcherId })).status).toBe(200);
  const listed = await post("ListDir", { path: null, depth: null });
  expect([listed.status, await listed.json()]).toEqual([200, {}]);
});
