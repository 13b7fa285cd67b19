import { createHash, randomBytes } from "node:crypto";
import { readdir, readlink, truncate } from "node:fs/promises";
import type { FileChange } from "@wrenn/sdk";
import { beforeAll, describe, expect, test } from "vitest";
import { useSdk } from "../harness/sdk.ts";

const sdk = useSdk();

const files = () => sdk().box.files;

beforeAll(async () => {
  // Of the world that these tests see.
  await sdk().box.commands.run("mkdir -p closed && chown 0:0 closed && chmod 700 closed", { user: "root" });
});

const anyBytes = Uint8Array.from({ length: 100_000 }, (_byte, at) => (at * 31) % 256);

/** A stream of pieces, and how far it has been read. */
function pieces(count: number, piece: Uint8Array): { stream: ReadableStream<Uint8Array>; cancelled: () => boolean } {
  let given = 0;
  let cancelled = false;
  const stream = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (given === count) controller.close();
        else {
          given += 1;
          controller.enqueue(piece);
        }
      },
      cancel: () => void (cancelled = true),
    },
    { highWaterMark: 0 },
  );
  return { stream, cancelled: () => cancelled };
}

async function readAll(
  stream: ReadableStream<Uint8Array>,
  onPiece: (bytes: Uint8Array) => void | Promise<void>,
): Promise<void> {
  const reader = stream.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) await onPiece(next.value);
}

describe("a file", () => {
  test("is written, described and read as it was, whatever it is given as", async () => {
    const entry = await files().write("notes/täglich.txt", "grüß dich 😀");
    expect(entry).toMatchObject({
      name: "täglich.txt",
      path: "/home/user/notes/täglich.txt",
      type: "file",
      size: 16,
      mode: 0o644,
      permissions: "-rw-r--r--",
      owner: "user",
      symlinkTarget: null,
    });
    expect(Math.abs(entry.modifiedAt.getTime() - Date.now())).toBeLessThan(60_000);
    expect(await files().read("~/notes/täglich.txt")).toBe("grüß dich 😀");
    for (const content of [anyBytes, new Blob([anyBytes]), new Response(anyBytes).body ?? ""]) {
      expect((await files().write("bytes", content)).size).toBe(anyBytes.byteLength);
      expect(await files().readBytes("bytes")).toEqual(anyBytes);
    }
    expect((await files().write("empty", "")).size).toBe(0);
    expect(await files().read("empty")).toBe("");
    expect(await files().readBytes("empty")).toHaveLength(0);
  });

  test("has a name of any characters", async () => {
    const name = "a b+c%20&d=?#'\"\\\n→.txt";
    await files().write(`odd/${name}`, "x");
    expect((await files().list("odd")).map((entry) => entry.name)).toEqual([name]);
    expect(await files().read(`odd/${name}`)).toBe("x");
  });

  test("is read in part", async () => {
    await files().write("digits", "0123456789");
    const text = async (range: { start: number; end?: number }): Promise<string> =>
      new TextDecoder().decode(await files().readBytes("digits", { range }));
    expect(await text({ start: 3 })).toBe("3456789");
    expect(await text({ start: 3, end: 5 })).toBe("34");
    expect(await text({ start: 8, end: 100 })).toBe("89");
    await expect(text({ start: 10 })).rejects.toMatchObject({ name: "FileError", code: "range_not_satisfiable" });
    await expect(text({ start: 5, end: 5 })).rejects.toMatchObject({ name: "InvalidRequestError" });
    await expect(text({ start: -1 })).rejects.toMatchObject({ name: "InvalidRequestError" });
  });

  test("belongs to the user that it is written as", async () => {
    expect(await files().write("mine", "x", { user: "root" })).toMatchObject({ path: "/root/mine", owner: "root" });
    await files().remove("/root/mine");
    await expect(files().read("mine", { user: "nobody-known" })).rejects.toMatchObject({ code: "guest_refused" });
    await expect(files().stat("/", { user: "nobody-known" })).rejects.toMatchObject({ code: "guest_refused" });
  });

  test("that cannot be had says why", async () => {
    await files().makeDirectory("a-directory");
    for (const attempt of [
      () => files().read("nothing-here"),
      () => files().stat("nothing-here"),
      () => files().list("nothing-here"),
      () => files().move("nothing-here", "there"),
      () => files().watch("nothing-here", () => undefined),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ name: "FileError", code: "file_not_found", status: 404 });
    }
    await files().write("a-file", "x");
    for (const attempt of [
      () => files().read("a-directory"),
      () => files().write("a-directory", "x"),
      () => files().list("a-file"),
      () => files().makeDirectory("a-file"),
      () => files().watch("a-file", () => undefined),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ name: "FileError", code: "wrong_file_type" });
    }
  });

  test("that does not fit says so", async () => {
    const { stream } = pieces(400, new Uint8Array(65_536));
    await expect(files().write("/mnt/large", stream)).rejects.toMatchObject({
      name: "FileError",
      code: "guest_out_of_disk",
    });
    expect(await files().list("/mnt")).toEqual([]);
  });
});

describe("a directory", () => {
  test("is made once, listed as deep as wanted, moved and removed", async () => {
    expect(await files().makeDirectory("tree/a/b")).toBe(true);
    expect(await files().makeDirectory("tree/a/b")).toBe(false);
    await files().write("tree/a/file", "x");
    await sdk().box.commands.run("ln -s file tree/a/link; ln -s nowhere tree/a/broken");
    const names = async (depth?: number): Promise<string[]> =>
      (await files().list("tree", { depth })).map(({ path }) => path.replace("/home/user/tree/", ""));
    expect(await names()).toEqual(["a"]);
    expect(await names(2)).toEqual(["a", "a/b", "a/broken", "a/file", "a/link"]);
    const types = Object.fromEntries((await files().list("tree/a")).map(({ name, type }) => [name, type]));
    expect(types).toEqual({ b: "directory", broken: "symlink", file: "file", link: "file" });
    expect((await files().stat("tree/a/link")).symlinkTarget).toBe("/home/user/tree/a/file");
    expect(await files().move("tree/a", "tree/c/d")).toMatchObject({ path: "/home/user/tree/c/d", type: "directory" });
    expect(await files().exists("tree/a")).toBe(false);
    expect(await files().exists("tree/c/d/file")).toBe(true);
    await files().remove("tree");
    await files().remove("tree");
    expect(await files().exists("tree")).toBe(false);
  });
});

describe("a whole directory", () => {
  test("goes both ways as tar", async () => {
    await files().write("from/a/ünï.txt", "text");
    await files().write("from/bytes", anyBytes);
    await sdk().box.commands.run("ln -s bytes from/link; chmod 750 from/a; : > from/empty; mkdir from/nothing");
    await files().writeArchive("to/there", await files().readArchive("from"));
    const described = async (path: string) =>
      (await files().list(path, { depth: 3 })).map((entry) => [
        entry.path.replace(`/home/user/${path}/`, ""),
        entry.type,
        entry.permissions,
        entry.size,
      ]);
    expect(await described("to/there")).toEqual(await described("from"));
    expect(await files().readBytes("to/there/bytes")).toEqual(anyBytes);
    const { stdout } = await sdk().box.commands.run(["tar", "t"], {
      stdin: await files().readArchive("to/there"),
      cwd: "/tmp",
    });
    expect(stdout).toContain("a/");
    await files().remove("from");
    await files().remove("to");
  });

  test("that is none, or an archive that is none, says so", async () => {
    await files().write("a-file", "x");
    await expect(files().readArchive("nothing-here")).rejects.toMatchObject({ code: "file_not_found" });
    await expect(files().writeArchive("into", "no archive at all".repeat(100))).rejects.toMatchObject({
      name: "FileError",
      code: "invalid_archive",
    });
    const whole = new Uint8Array(await new Response(await files().readArchive("a-directory")).arrayBuffer());
    await expect(files().writeArchive("a-file", whole)).rejects.toMatchObject({ code: "wrong_file_type" });
  });
});

describe("a large file", () => {
  const piece = randomBytes(1_048_576);
  const count = 300;

  test("goes both ways in streams, with flat memory", async () => {
    const sent = createHash("sha256");
    for (let at = 0; at < count; at += 1) sent.update(piece);
    const before = process.memoryUsage().rss;
    let peak = before;
    const watching = setInterval(() => (peak = Math.max(peak, process.memoryUsage().rss)), 20);
    try {
      expect((await files().write("large", pieces(count, piece).stream)).size).toBe(count * piece.byteLength);
      const received = createHash("sha256");
      await readAll(await files().readStream("large"), (bytes) => void received.update(bytes));
      expect(received.digest("hex")).toBe(sent.digest("hex"));
    } finally {
      clearInterval(watching);
    }
    // Server and SDK are both in this process: garbage of two, but never the file.
    expect(peak - before).toBeLessThan(150 * 1_048_576);
    await files().remove("large");
  });

  test("that is let go in the middle is no longer read", async () => {
    await files().write("sparse", "");
    await truncate(sdk().guest.outside("/home/user/sparse"), 2_000_000_000);
    const openFiles = async (): Promise<string[]> => {
      const descriptors = `/proc/${sdk().guest.pid}/fd`;
      const targets = (await readdir(descriptors)).map(async (fd) =>
        // One that has just been closed leads nowhere.
        readlink(`${descriptors}/${fd}`).catch(() => ""),
      );
      return Promise.all(targets);
    };
    const stream = await files().readStream("sparse");
    const reader = stream.getReader();
    expect((await reader.read()).done).toBe(false);
    expect((await openFiles()).join()).toContain("/sparse");
    await reader.cancel();
    await expect.poll(async () => (await openFiles()).join()).not.toContain("/sparse");
    await files().remove("sparse");
  });

  test("that is aborted in the middle ends at once, either way", async () => {
    const reason = new Error("enough");
    const stop = new AbortController();
    const { stream, cancelled } = pieces(Number.POSITIVE_INFINITY, piece);
    const writing = files().write("endless", stream, { signal: stop.signal });
    setTimeout(() => stop.abort(reason), 100);
    await expect(writing).rejects.toBe(reason);
    expect(cancelled()).toBe(true);
    // It appears whole or not at all.
    expect(await files().exists("endless")).toBe(false);

    await files().write("sparse", "");
    await truncate(sdk().guest.outside("/home/user/sparse"), 2_000_000_000);
    const abortRead = new AbortController();
    let seen = 0;
    const reading = readAll(await files().readStream("sparse", { signal: abortRead.signal }), (bytes) => {
      seen += bytes.byteLength;
      if (seen > 1_000_000) abortRead.abort(reason);
    });
    await expect(reading).rejects.toBe(reason);
    await files().remove("sparse");
  });

  test("whose source fails is not written, and the reason is told", async () => {
    const reason = new Error("the source is gone");
    let given = 0;
    const failing = new ReadableStream<Uint8Array>({
      pull(controller) {
        given += 1;
        if (given > 3) controller.error(reason);
        else controller.enqueue(piece);
      },
    });
    await expect(files().write("half", failing)).rejects.toBe(reason);
    expect(await files().exists("half")).toBe(false);
  });
});

describe("a watch", () => {
  test("tells what changes from when it begins until it is stopped", async () => {
    await files().makeDirectory("watched/below");
    const changes: FileChange[] = [];
    const watch = await files().watch("watched", (change) => void changes.push(change));
    await files().write("watched/new", "x");
    await expect.poll(() => changes).toContainEqual({ type: "create", name: "new" });
    await files().write("watched/below/unseen", "x");
    await files().remove("watched/new");
    await expect.poll(() => changes).toContainEqual({ type: "remove", name: "new" });
    expect(changes.map(({ name }) => name)).not.toContain("below/unseen");
    watch.stop();
    expect(await watch.closed).toBe("stopped");
    const seen = changes.length;
    await files().write("watched/later", "x");
    expect(await files().exists("watched/later")).toBe(true);
    expect(changes).toHaveLength(seen);
  });

  test("sees directories below when that is wanted, those made later too", async () => {
    await files().makeDirectory("deep/one");
    const changes: FileChange[] = [];
    const watch = await files().watch("deep", (change) => void changes.push(change), { recursive: true });
    await files().write("deep/one/file", "x");
    await files().write("deep/two/three/file", "x");
    await expect.poll(() => changes.map(({ name }) => name)).toContain("one/file");
    await expect.poll(() => changes.map(({ name }) => name)).toContain("two/three/file");
    watch.stop();
  });

  test("is over when the directory is removed, when its signal says so, and when its listener fails", async () => {
    await files().makeDirectory("doomed");
    const watch = await files().watch("doomed", () => undefined);
    await files().remove("doomed");
    expect(await watch.closed).toBe("removed");

    const stop = new AbortController();
    const other = await files().watch(".", () => undefined, { signal: stop.signal });
    stop.abort();
    await expect(other.closed).rejects.toMatchObject({ name: "AbortError" });

    const reason = new Error("the listener is broken");
    const failing = await files().watch(".", () => {
      throw reason;
    });
    await files().write("something", "x");
    await expect(failing.closed).rejects.toBe(reason);
  });
});
