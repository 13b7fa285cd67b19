import { appendFile, chmod, mkdir, rename, rm, writeFile } from "node:fs/promises";
import { Code, ConnectError } from "@connectrpc/connect";
import { filesystemProto } from "@wrenn/contract";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { startGuestAgent, user, type GuestAgent } from "./harness.ts";

const { EventType } = filesystemProto;

let agent: GuestAgent;
let directory: string;
let outside: (file: string) => string;
let serial = 0;
beforeAll(async () => {
  agent = await startGuestAgent();
  ({ outside } = agent);
});
beforeEach(async () => {
  serial += 1;
  directory = `${user.home}/watched-${serial}`;
  await mkdir(outside(directory));
});
afterAll(() => agent.stop());

/** Events as "CREATE a/b", gathered until one of them is the last that is waited for. */
class Watch {
  readonly seen: string[] = [];
  readonly entries = new Map<string, filesystemProto.EntryInfo>();
  keepalives = 0;
  readonly #stream: AsyncIterator<filesystemProto.WatchDirResponse>;
  readonly #abort: AbortController;

  private constructor(stream: AsyncIterable<filesystemProto.WatchDirResponse>, abort: AbortController) {
    this.#stream = stream[Symbol.asyncIterator]();
    this.#abort = abort;
  }

  static async start(
    request: { readonly recursive?: boolean; readonly includeEntry?: boolean; readonly path?: string } = {},
    options: { readonly binary?: boolean; readonly headers?: Record<string, string> } = {},
  ): Promise<Watch> {
    const abort = new AbortController();
    const watch = new Watch(
      agent.filesystem(options).watchDir({ path: directory, ...request }, { signal: abort.signal }),
      abort,
    );
    const first = await watch.#stream.next();
    if (first.done === true || first.value.event.case !== "start") throw new Error("a watch begins with a start event");
    return watch;
  }

  /** False once the stream has ended. */
  async next(): Promise<boolean> {
    const next = await this.#stream.next();
    if (next.done === true) return false;
    const { event } = next.value;
    if (event.case === "keepalive") this.keepalives += 1;
    if (event.case === "filesystem") {
      const told = `${EventType[event.value.type]} ${event.value.name}`;
      this.seen.push(told);
      if (event.value.entry !== undefined) this.entries.set(told, event.value.entry);
    }
    return true;
  }

  async until(last: string): Promise<string[]> {
    while (!this.seen.includes(last) && (await this.next()));
    return this.seen;
  }

  stop(): void {
    this.#abort.abort();
  }
}

test.each([{ binary: false }, { binary: true }])("changes are told as they happen, binary: $binary", async (codec) => {
  const watch = await Watch.start({}, codec);
  await writeFile(outside(`${directory}/f`), "x");
  expect(await watch.until("WRITE f")).toEqual(["CREATE f", "WRITE f"]);
  await chmod(outside(`${directory}/f`), 0o600);
  await watch.until("CHMOD f");
  await rename(outside(`${directory}/f`), outside(`${directory}/g`));
  expect((await watch.until("CREATE g")).slice(-2)).toEqual(["RENAME f", "CREATE g"]);
  await rm(outside(`${directory}/g`));
  await watch.until("REMOVE g");
  watch.stop();
});

test("an upload looks like a file written in place", async () => {
  const watch = await Watch.start();
  const put = (text: string) =>
    agent.fetch(`/files?path=${directory}/up`, {
      method: "POST",
      body: text,
      headers: { "Content-Type": "application/octet-stream" },
    });
  expect((await put("one")).status).toBe(200);
  expect(await watch.until("WRITE up")).toEqual(["CREATE up", "WRITE up"]);
  watch.seen.length = 0;
  expect((await put("two")).status).toBe(200);
  expect(await watch.until("WRITE up")).toEqual(["WRITE up"]);
  watch.stop();
});

test("without recursion what happens below is not told", async () => {
  await mkdir(outside(`${directory}/sub`));
  const watch = await Watch.start();
  await writeFile(outside(`${directory}/sub/f`), "x");
  await writeFile(outside(`${directory}/g`), "x");
  const seen = await watch.until("WRITE g");
  expect(seen.filter((event) => event.includes("sub/"))).toEqual([]);
  watch.stop();
});

describe("recursively", () => {
  test("directories that are there are watched", async () => {
    await mkdir(outside(`${directory}/a/b`), { recursive: true });
    const watch = await Watch.start({ recursive: true });
    await writeFile(outside(`${directory}/a/b/f`), "x");
    expect(await watch.until("WRITE a/b/f")).toEqual(["CREATE a/b/f", "WRITE a/b/f"]);
    watch.stop();
  });

  test("new directories are watched, and nothing made in them meanwhile is missed or told twice", async () => {
    const watch = await Watch.start({ recursive: true });
    const names = Array.from({ length: 20 }, (_, index) => `n${index}`);
    for (const name of names) {
      await mkdir(outside(`${directory}/${name}/deep/er`), { recursive: true });
      await writeFile(outside(`${directory}/${name}/deep/er/f`), "");
    }
    await writeFile(outside(`${directory}/last`), "");
    // What was found by looking may come after what happened later elsewhere.
    await watch.until("CREATE last");
    const expected = names.flatMap((name) => [name, `${name}/deep`, `${name}/deep/er`, `${name}/deep/er/f`]);
    const created = watch.seen.filter((event) => event.startsWith("CREATE ")).map((event) => event.slice(7));
    expect(created.filter((name) => name !== "last").sort()).toEqual(expected.sort());
    await appendFile(outside(`${directory}/n7/deep/er/f`), "later");
    await watch.until("WRITE n7/deep/er/f");
    watch.stop();
  });

  test("a directory that is moved is told of under its new name, and no more once it has left", async () => {
    await mkdir(outside(`${directory}/a`));
    await writeFile(outside(`${directory}/a/f`), "");
    const watch = await Watch.start({ recursive: true });
    await rename(outside(`${directory}/a`), outside(`${directory}/b`));
    await watch.until("CREATE b/f");
    expect(watch.seen).toEqual(["RENAME a", "CREATE b", "CREATE b/f"]);
    await appendFile(outside(`${directory}/b/f`), "x");
    await watch.until("WRITE b/f");

    await rename(outside(`${directory}/b`), outside(`${directory}-left`));
    await watch.until("RENAME b");
    watch.seen.length = 0;
    await appendFile(outside(`${directory}-left/f`), "x");
    await rename(outside(`${directory}-left`), outside(`${directory}/c`));
    expect(await watch.until("CREATE c/f")).toEqual(["CREATE c", "CREATE c/f"]);
    watch.stop();
  });

  test("a removed tree is told of once per entry", async () => {
    await mkdir(outside(`${directory}/a/b`), { recursive: true });
    await writeFile(outside(`${directory}/a/b/f`), "");
    const watch = await Watch.start({ recursive: true });
    await rm(outside(`${directory}/a`), { recursive: true });
    expect((await watch.until("REMOVE a")).filter((event) => event.startsWith("REMOVE"))).toEqual([
      "REMOVE a/b/f",
      "REMOVE a/b",
      "REMOVE a",
    ]);
    watch.stop();
  });
});

test("entries come along when asked for", async () => {
  const watch = await Watch.start({ includeEntry: true });
  await writeFile(outside(`${directory}/f`), "12345");
  await watch.until("WRITE f");
  expect(watch.entries.get("WRITE f")).toMatchObject({ name: "f", path: `${directory}/f`, size: 5n });
  await rm(outside(`${directory}/f`));
  await watch.until("REMOVE f");
  expect(watch.entries.has("REMOVE f")).toBe(false);
  watch.stop();
});

test("the stream ends when the directory is removed", async () => {
  const watch = await Watch.start();
  await rm(outside(directory), { recursive: true });
  expect(await watch.until("REMOVE .")).toContain("REMOVE .");
  expect(await watch.next()).toBe(false);
});

test("an idle watch is kept alive, and ends at its deadline", async () => {
  const headers = { "Keepalive-Ping-Interval": "1", "Connect-Timeout-Ms": "2300" };
  const watch = await Watch.start({}, { headers });
  const end = await (async () => {
    while (await watch.next());
  })().then(
    () => expect.fail("it ended well"),
    (error: unknown) => ConnectError.from(error),
  );
  expect(end.code).toBe(Code.DeadlineExceeded);
  expect(watch.keepalives).toBe(2);
});

test("more changes than can be told end the stream with an error", async () => {
  const client = agent.filesystem();
  const { watcherId } = await client.createWatcher({ path: directory });
  for (let file = 0; file < 9_000; file += 1) await writeFile(outside(`${directory}/${file}`), "x");
  await expect
    .poll(async () => (await client.getWatcherEvents({ watcherId })).events.length, { timeout: 5_000 })
    .toBeGreaterThan(1_000);
  await expect
    .poll(
      () =>
        client.getWatcherEvents({ watcherId }).then(
          (reply) => reply.events.length,
          (error: unknown) => ConnectError.from(error).code,
        ),
      { timeout: 5_000 },
    )
    .toBe(Code.ResourceExhausted);
  await client.removeWatcher({ watcherId });
});

test("changes can be fetched by polling", async () => {
  const client = agent.filesystem();
  const { watcherId } = await client.createWatcher({ path: directory, recursive: true, includeEntry: true });
  expect((await client.getWatcherEvents({ watcherId })).events).toEqual([]);
  await mkdir(outside(`${directory}/a`));
  await writeFile(outside(`${directory}/a/f`), "x");
  const events: filesystemProto.FilesystemEvent[] = [];
  await expect
    .poll(async () => {
      events.push(...(await client.getWatcherEvents({ watcherId })).events);
      return events.map((event) => `${EventType[event.type]} ${event.name}`);
    })
    .toContain("CREATE a/f");
  expect(events[0]).toMatchObject({ name: "a", type: EventType.CREATE, entry: { path: `${directory}/a` } });
  await client.removeWatcher({ watcherId });
  await expect(client.getWatcherEvents({ watcherId })).rejects.toMatchObject({ code: Code.NotFound });
});
