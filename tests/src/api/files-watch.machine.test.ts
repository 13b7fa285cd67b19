import { utimesSync } from "node:fs";
import { mkdir, readdir, readlink, rename, rm, writeFile } from "node:fs/promises";
import http from "node:http";
import { setImmediate as yieldToOthers } from "node:timers/promises";
import { eventually } from "@wrenn/control-plane/testing";
import { beforeAll, expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";
import { EventStream } from "../harness/event-stream.ts";
import { FilesApi, refused } from "../harness/files-api.ts";
import type { Query } from "../harness/files-api.ts";

const mib = 1_048_576;

const api = useApiServer();
const files = new FilesApi(api);
const { outside } = files;
/** One on which nothing happens for as long as these tests take. */
let quiet: EventStream;
beforeAll(async () => {
  await mkdir(outside("/home/user/quiet"));
  quiet = await watch({ path: "quiet" });
});

async function watch(query: Query): Promise<EventStream> {
  const stream = await EventStream.open(files.start("GET", "/watch", query));
  expect(await stream.next()).toEqual({ event: "ready", data: {} });
  return stream;
}

/** What the guest agent has open to be told of changes: two descriptors for each watch. */
async function watchesInGuest(): Promise<number> {
  const directory = `/proc/${api().guest.pid}/fd`;
  const links = (await readdir(directory)).map(async (descriptor) =>
    readlink(`${directory}/${descriptor}`).catch(() => "closed"),
  );
  return (await Promise.all(links)).filter((link) => link.includes("inotify")).length;
}

function change(type: string, name: string): { event: string; data: unknown } {
  return { event: "change", data: { type, name } };
}

function failure(code: string): { event: string; data: unknown } {
  return { event: "error", data: { error: expect.objectContaining({ code, request_id: expect.any(String) }) } };
}

test("tells that it is ready, then of each change by its kind and name", async () => {
  await mkdir(outside("/home/user/kinds"));
  const stream = await watch({ path: "kinds" });
  expect(stream.response.headers).toMatchObject({ "content-type": "text/event-stream", "cache-control": "no-store" });
  await writeFile(outside('/home/user/kinds/a\n\n"b"'), "x");
  expect(await stream.next()).toEqual(change("create", 'a\n\n"b"'));
  expect(await stream.next()).toEqual(change("write", 'a\n\n"b"'));
  await rename(outside('/home/user/kinds/a\n\n"b"'), outside("/home/user/kinds/é"));
  expect(await stream.next()).toEqual(change("rename", 'a\n\n"b"'));
  expect(await stream.next()).toEqual(change("create", "é"));
  utimesSync(outside("/home/user/kinds/é"), 1, 1);
  expect(await stream.next()).toEqual(change("chmod", "é"));
  await rm(outside("/home/user/kinds/é"));
  expect(await stream.next()).toEqual(change("remove", "é"));
  stream.leave();
});

test("sees what is made in directories that are made later, when it is recursive", async () => {
  await mkdir(outside("/home/user/deep"));
  const [recursive, flat] = [await watch({ path: "deep", recursive: true }), await watch({ path: "deep" })];
  await mkdir(outside("/home/user/deep/a/b/c"), { recursive: true });
  await writeFile(outside("/home/user/deep/a/b/c/file"), "");
  for (const name of ["a", "a/b", "a/b/c", "a/b/c/file"]) {
    await recursive.until(({ event, data }) => event === "change" && (data as { name: string }).name === name);
  }
  await writeFile(outside("/home/user/deep/last"), "");
  expect(await flat.next()).toEqual(change("create", "a"));
  expect(await flat.until(({ data }) => (data as { name: string }).name !== "a")).toEqual(change("create", "last"));
  recursive.leave();
  flat.leave();
});

test("an upload is told of as one file, not as the one it is gathered in", async () => {
  await mkdir(outside("/home/user/inbox"));
  const stream = await watch({ path: "inbox" });
  await files.put("inbox/file", "x");
  expect(await stream.next()).toEqual(change("create", "file"));
  expect(await stream.next()).toEqual(change("write", "file"));
  stream.leave();
});

test("ends in the guest when its client leaves, before and after it is ready", async () => {
  await mkdir(outside("/home/user/left"));
  // That of the quiet directory.
  await eventually(async () => expect(await watchesInGuest()).toBe(2));
  const streams = await Promise.all(Array.from({ length: 5 }, async () => watch({ path: "left", recursive: true })));
  expect(await watchesInGuest()).toBe(12);
  for (const stream of streams) stream.leave();
  const hasty = files.start("GET", "/watch", { path: "left" });
  hasty.on("error", () => undefined).end();
  setTimeout(() => hasty.destroy(), 2);
  await eventually(async () => expect(await watchesInGuest()).toBe(2));
});

test("ends with an error once the directory is gone", async () => {
  await mkdir(outside("/home/user/gone"));
  const stream = await watch({ path: "gone" });
  await rm(outside("/home/user/gone"), { recursive: true });
  expect(await stream.rest()).toEqual([change("remove", "."), failure("file_not_found")]);
});

test("of what cannot be watched is refused as a request", async () => {
  await writeFile(outside("/home/user/file"), "");
  expect(await files.call("GET", "/watch", { path: "file" })).toEqual(refused(400, "wrong_file_type"));
  expect(await files.call("GET", "/watch", { path: "missing" })).toEqual(refused(404, "file_not_found"));
  expect(await files.call("GET", "/watch", { path: "~", recursive: "deep" })).toEqual(refused(400, "invalid_request"));
});

test("ends with an error when the server stops", async () => {
  const { server } = api();
  await mkdir(outside("/home/user/stopping"));
  const replica = await server.startReplica();
  const request = http.request(`${replica.url}${files.target("/watch", { path: "stopping" })}`, {
    headers: { "X-API-Key": server.key },
  });
  const stream = await EventStream.open(request);
  expect(await stream.next()).toEqual({ event: "ready", data: {} });
  const stopped = replica.stop();
  expect(await stream.rest()).toEqual([failure("shutting_down")]);
  await stopped;
});

test("ends with an error when its client is too slow, and fills no memory meanwhile", async () => {
  await mkdir(outside("/home/user/flood"));
  // Two, because the kernel joins changes that are alike; with long names, because there is room for some on the way.
  const names = ["a", "b"].map((letter) => outside(`/home/user/flood/${letter.repeat(250)}`));
  for (const name of names) await writeFile(name, "");
  const stream = await watch({ path: "flood" });
  stream.response.pause();
  const memory = process.memoryUsage.rss();
  const rounds = 300;
  for (let round = 0; round < rounds; round += 1) {
    for (let at = 0; at < 500; at += 1) {
      for (const name of names) utimesSync(name, at, at);
    }
    await yieldToOthers();
  }
  expect(process.memoryUsage.rss() - memory).toBeLessThan(100 * mib);
  const events = await stream.rest();
  expect(events.at(-1)).toEqual(failure("watch_overflow"));
  expect(events.length).toBeLessThan(rounds * 1_000);
});

test("says from time to time that it is there, when nothing happens", async () => {
  expect(await quiet.until(({ event }) => event !== "error")).toEqual({ event: "", data: undefined });
  await writeFile(outside("/home/user/quiet/file"), "");
  expect(await quiet.until(({ event }) => event !== "")).toEqual(change("create", "file"));
  quiet.leave();
});

test("ends with an error when the sandbox goes", async () => {
  await mkdir(outside("/home/user/lost"));
  const stream = await watch({ path: "lost" });
  const { agent } = api().server;
  await agent.pause();
  expect(await stream.rest()).toEqual([failure("connection_lost")]);
  await agent.resume();
  await eventually(async () => expect((await files.get("/proc/version")).status).toBe(200));
});
