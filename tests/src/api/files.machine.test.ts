import { execFile } from "node:child_process";
import { mkdir, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { user } from "../guest-agent/harness.ts";
import { useApiServer } from "../harness/api-server.ts";
import { FilesApi, refused } from "../harness/files-api.ts";

const api = useApiServer();
const files = new FilesApi(api);
const { outside } = files;

/** Names that have broken programs before. */
const oddNames = [
  "with space",
  "quote'\"`$(x)",
  "two\nlines",
  "plus+percent%41&=?#",
  "ÄÖ 日本 🙂",
  "-rf",
  "back\\slash",
];

describe("stat", () => {
  test("describes files, directories, links, and what is neither", async () => {
    await writeFile(outside("/home/user/plain"), "12345", { mode: 0o640 });
    await utimes(outside("/home/user/plain"), 1_000_000_000, 1_000_000_000);
    await symlink("plain", outside("/home/user/link"));
    await symlink("nowhere", outside("/home/user/dangling"));
    expect(await files.call("GET", "/stat", { path: "plain" })).toEqual([
      200,
      {
        name: "plain",
        path: "/home/user/plain",
        type: "file",
        size: 5,
        mode: 0o640,
        permissions: "-rw-r-----",
        owner: "root",
        group: "root",
        modified_at: "2001-09-09T01:46:40.000Z",
        symlink_target: null,
      },
    ]);
    expect(await files.call("GET", "/stat", { path: "~" })).toMatchObject([
      200,
      { type: "directory", owner: user.name },
    ]);
    const link = { type: "file", symlink_target: "/home/user/plain" };
    expect(await files.call("GET", "/stat", { path: "link" })).toMatchObject([200, link]);
    expect(await files.call("GET", "/stat", { path: "dangling" })).toMatchObject([200, { type: "symlink" }]);
    expect(await files.call("GET", "/stat", { path: "/dev/null" })).toMatchObject([200, { type: "other" }]);
  });

  test("starts relative paths at the home of the user who is named", async () => {
    await writeFile(outside("/home/other/theirs"), "");
    const theirs = { path: "/home/other/theirs" };
    expect(await files.call("GET", "/stat", { path: "theirs", user: "other" })).toMatchObject([200, theirs]);
    expect(await files.call("GET", "/stat", { path: "theirs" })).toEqual(refused(404, "file_not_found"));
    expect(await files.call("GET", "/stat", { path: "theirs", user: "nobody-of-that-name" })).toEqual(
      refused(400, "guest_refused"),
    );
  });

  test("gives sizes and times that numbers and dates can hold", async () => {
    const huge = outside("/mnt/huge");
    await promisify(execFile)("truncate", ["--size=7E", huge]);
    await utimes(huge, 0, 10 ** 12);
    expect(await files.call("GET", "/stat", { path: "/mnt/huge" })).toMatchObject([
      200,
      { size: Number.MAX_SAFE_INTEGER, modified_at: "9999-12-31T23:59:59.000Z" },
    ]);
    await utimes(huge, 0, new Date(-1_000_000));
    expect(await files.call("GET", "/stat", { path: "/mnt/huge" })).toMatchObject([
      200,
      { modified_at: "1969-12-31T23:43:20.000Z" },
    ]);
  });
});

describe("list", () => {
  test("goes as deep as asked, sorted, and follows no links", async () => {
    await mkdir(outside("/home/user/tree/b/c"), { recursive: true });
    await writeFile(outside("/home/user/tree/a"), "");
    await writeFile(outside("/home/user/tree/b/c/d"), "");
    await symlink("/home/user/tree/b", outside("/home/user/tree/z"));
    const names = async (depth: number): Promise<string[]> => {
      const [, body] = await files.call("GET", "/list", { path: "tree", depth });
      return (body as { entries: { path: string }[] }).entries.map(({ path }) => path.replace("/home/user/tree/", ""));
    };
    expect(await names(1)).toEqual(["a", "b", "z"]);
    expect(await names(2)).toEqual(["a", "b", "b/c", "z"]);
    expect(await names(64)).toEqual(["a", "b", "b/c", "b/c/d", "z"]);
  });

  test("refuses what is no directory, and depths that there are not", async () => {
    await writeFile(outside("/home/user/file"), "");
    expect(await files.call("GET", "/list", { path: "file" })).toEqual(refused(400, "wrong_file_type"));
    expect(await files.call("GET", "/list", { path: "missing" })).toEqual(refused(404, "file_not_found"));
    for (const depth of [0, 65, 1.5, "deep"]) {
      expect(await files.call("GET", "/list", { path: "~", depth })).toEqual(refused(400, "invalid_request"));
    }
  });
});

describe("mkdir", () => {
  test("makes those above as well, for the user", async () => {
    const made = await files.post("/mkdir", { path: "new/deep/er" });
    expect(made).toMatchObject([201, { path: "/home/user/new/deep/er", type: "directory", owner: user.name }]);
    expect(await stat(outside("/home/user/new"))).toMatchObject({ uid: user.uid });
  });

  test("refuses with 409 where anything is already", async () => {
    await mkdir(outside("/home/user/there"));
    await writeFile(outside("/home/user/there/file"), "");
    await symlink("nowhere", outside("/home/user/there/dangling"));
    for (const path of ["there", "there/", "/", "there/file", "there/dangling", "/dev/null"]) {
      expect(await files.post("/mkdir", { path })).toEqual(refused(409, "file_exists"));
    }
    expect(await files.post("/mkdir", { path: "there/file/below" })).toEqual(refused(400, "wrong_file_type"));
  });

  test("of several at once each succeeds or is told that it is there", async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, async () => files.post("/mkdir", { path: "race" })));
    expect(answers.some(([status]) => status === 201)).toBe(true);
    expect(answers.filter(([status]) => status !== 201 && status !== 409)).toEqual([]);
  });
});

describe("move", () => {
  test("renames, makes the directories above, and replaces a file", async () => {
    await writeFile(outside("/home/user/from"), "moved");
    await writeFile(outside("/home/user/replaced"), "old");
    expect(await files.post("/move", { source: "from", destination: "a/b/to" })).toMatchObject([
      200,
      { path: "/home/user/a/b/to", size: 5 },
    ]);
    expect(await files.post("/move", { source: "a/b/to", destination: "replaced" })).toMatchObject([200, { size: 5 }]);
    expect(await files.call("GET", "/stat", { path: "from" })).toEqual(refused(404, "file_not_found"));
  });

  test("refuses what is not there, and to replace a directory with things in it", async () => {
    await mkdir(outside("/home/user/full/x"), { recursive: true });
    await mkdir(outside("/home/user/dir"));
    expect(await files.post("/move", { source: "gone", destination: "x" })).toEqual(refused(404, "file_not_found"));
    expect(await files.post("/move", { source: "dir", destination: "full" })).toEqual(refused(400, "guest_refused"));
    await rm(outside("/home/user/full"), { recursive: true });
  });
});

describe("remove", () => {
  test("takes a directory with all that is in it, and a link without what it leads to", async () => {
    await mkdir(outside("/home/user/doomed/deep"), { recursive: true });
    await writeFile(outside("/home/user/kept"), "kept");
    await symlink("/home/user/kept", outside("/home/user/doomed/deep/link"));
    expect(await files.call("DELETE", "", { path: "doomed" })).toEqual([204, {}]);
    expect(await files.call("GET", "/stat", { path: "doomed" })).toEqual(refused(404, "file_not_found"));
    expect(await files.call("GET", "/stat", { path: "kept" })).toMatchObject([200, { size: 4 }]);
  });

  test("says that there is nothing, that it may not, and takes links to nowhere", async () => {
    await symlink("nowhere", outside("/home/user/loose"));
    expect(await files.call("DELETE", "", { path: "loose" })).toEqual([204, {}]);
    expect(await files.call("DELETE", "", { path: "loose" })).toEqual(refused(404, "file_not_found"));
    expect(await files.call("DELETE", "", { path: "/" })).toEqual(refused(400, "wrong_file_type"));
    expect(await files.call("DELETE", "", { path: "/proc/self" })).toEqual(refused(403, "file_access_denied"));
  });
});

test.each(oddNames)("a name is taken as it is: %j", async (name) => {
  const made = await files.post("/mkdir", { path: `odd/${name}` });
  expect(made).toMatchObject([201, { name, path: `/home/user/odd/${name}` }]);
  expect(await files.namesIn("/home/user/odd")).toEqual([name]);
  const put = await files.put(`odd/${name}/${name}`, name);
  expect([put.status, await put.json()]).toMatchObject([201, { name }]);
  const got = await files.get(`odd/${name}/${name}`);
  expect([got.status, await got.text()]).toEqual([200, name]);
  expect(got.headers.get("content-disposition")).toMatch(/^attachment; filename\*?=/);
  expect(await files.call("DELETE", "", { path: `odd/${name}` })).toEqual([204, {}]);
});

describe("paths that are none are refused before the guest is asked", () => {
  const long = "x/".repeat(2_048);
  const paths = { empty: "", "with a NUL": "a\0b", "too long": long, "too long in bytes": "é".repeat(2_048) };

  test.each(Object.entries(paths))("%s", async (_what, path) => {
    const reads = ["/stat", "/list", "/watch", "/archive", ""];
    for (const read of reads) {
      expect(await files.call("GET", read, { path })).toEqual(refused(400, "invalid_request"));
    }
    expect(await files.call("DELETE", "", { path })).toEqual(refused(400, "invalid_request"));
    expect(await files.call("PUT", "", { path })).toEqual(refused(400, "invalid_request"));
    expect(await files.call("PUT", "/archive", { path })).toEqual(refused(400, "invalid_request"));
    expect(await files.post("/mkdir", { path })).toEqual(refused(400, "invalid_request"));
    expect(await files.post("/move", { source: path, destination: "x" })).toEqual(refused(400, "invalid_request"));
    expect(await files.post("/move", { source: "x", destination: path })).toEqual(refused(400, "invalid_request"));
  });

  test("none at all, two, and other parameters", async () => {
    expect(await files.call("GET", "/stat")).toEqual(refused(400, "invalid_request"));
    expect(await files.call("GET", "/stat", { path: "~", follow: true })).toEqual(refused(400, "invalid_request"));
    const twice = `${files.target("/stat", { path: "a" })}&path=b`;
    expect((await api().server.call("GET", twice)).status).toBe(400);
  });

  test("bytes that are no text", async () => {
    for (const query of ["path=%FF", "path=%E4%B8", "path=%", "path=a&user=%C3%28"]) {
      const { status, body } = await api().server.call("GET", `${files.target("/stat")}${query}`);
      expect([status, body]).toEqual(refused(400, "invalid_request"));
    }
  });
});

test("one name too long for any file system is the guest's to refuse", async () => {
  expect(await files.call("GET", "/stat", { path: "x".repeat(300) })).toEqual(refused(400, "wrong_file_type"));
  expect(await files.post("/mkdir", { path: "x".repeat(300) })).toEqual(refused(400, "wrong_file_type"));
});

test("another team's sandbox, one that does not run, and no key", async () => {
  const { server, sandbox } = api();
  const stranger = await server.makeKey("strangers of files");
  const stopped = await server.create();
  await server.call("DELETE", `/v1/sandboxes/${stopped.id}`);
  const routes = [
    ["GET", ""],
    ["PUT", ""],
    ["DELETE", ""],
    ["GET", "/stat"],
    ["GET", "/list"],
    ["GET", "/watch"],
    ["GET", "/archive"],
    ["PUT", "/archive"],
  ] as const;
  for (const [method, operation] of routes) {
    const target = files.target(operation, { path: "~" });
    const ask = async (id: string, key: string | null): Promise<[number, unknown]> => {
      const body = method === "PUT" ? { body: "x" } : {};
      const answer = await server.call(method, target.replace(sandbox.id, id), { key, ...body });
      return [answer.status, answer.body];
    };
    expect(await ask(sandbox.id, null)).toEqual(refused(401, "unauthorized"));
    expect(await ask(sandbox.id, stranger)).toEqual(refused(404, "sandbox_not_found"));
    expect(await ask(stopped.id, server.key)).toEqual(refused(409, "sandbox_state_conflict"));
    expect(await ask("sb-1", server.key)).toEqual(refused(400, "invalid_id"));
  }
});

test("methods that an address does not answer are named", async () => {
  const head = await files.fetch("/watch", { path: "~" }, { method: "HEAD" });
  expect([head.status, head.headers.get("allow")]).toEqual([405, "GET, OPTIONS"]);
  const posted = await files.fetch("", { path: "~" }, { method: "POST", body: "x" });
  expect([posted.status, posted.headers.get("allow")]).toEqual([405, "DELETE, GET, HEAD, OPTIONS, PUT"]);
});
