import { chmod, chown, lstat, mkdir, readdir, stat, symlink, writeFile } from "node:fs/promises";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { filesystemProto } from "@wrenn/contract";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGuestAgent, user, type GuestAgent } from "./harness.ts";

const { FileType } = filesystemProto;

let agent: GuestAgent;
let outside: (file: string) => string;
beforeAll(async () => {
  agent = await startGuestAgent();
  ({ outside } = agent);
});
afterAll(() => agent.stop());

async function failure(action: Promise<unknown>): Promise<ConnectError> {
  return ConnectError.from(
    await action.then(
      () => expect.fail("it worked"),
      (error: unknown) => error,
    ),
  );
}

describe.each([{ binary: false }, { binary: true }])("with binary messages: $binary", (codec) => {
  const client = () => agent.filesystem(codec);
  const directory = `${user.home}/codec-${codec.binary}`;

  test("a file is described", async () => {
    const file = `${directory}/described.txt`;
    await client().makeDir({ path: directory });
    await writeFile(outside(file), "12345");
    await chmod(outside(file), 0o640);
    await chown(outside(file), user.uid, 43_299);
    const { entry } = await client().stat({ path: file });
    expect(entry).toMatchObject({
      name: "described.txt",
      path: file,
      type: FileType.FILE,
      size: 5n,
      mode: 0o640,
      permissions: "-rw-r-----",
      owner: "user",
      group: "extra",
    });
    const { mtimeMs } = await stat(outside(file));
    const told = entry?.modifiedTime === undefined ? 0 : timestampDate(entry.modifiedTime).getTime();
    expect(Math.abs(told - mtimeMs)).toBeLessThan(2);
    expect(entry?.symlinkTarget).toBeUndefined();
  });

  test("directories are made with their parents, for the user", async () => {
    const path = `${directory}/a/b/c`;
    const { entry } = await client().makeDir({ path });
    expect(entry).toMatchObject({
      name: "c",
      path,
      type: FileType.DIRECTORY,
      mode: 0o755,
      owner: "user",
      group: "user",
    });
    expect(await stat(outside(`${directory}/a`))).toMatchObject({ uid: user.uid, gid: user.gid });
  });

  test("a directory is listed sorted, to the depth asked for", async () => {
    const path = `${directory}/listed`;
    await client().makeDir({ path: `${path}/sub/deep` });
    await writeFile(outside(`${path}/z`), "");
    await writeFile(outside(`${path}/sub/f`), "");
    const names = async (depth: number) =>
      (await client().listDir({ path, depth })).entries.map((entry) => entry.path.slice(path.length + 1));
    expect(await names(0)).toEqual(["sub", "z"]);
    expect(await names(1)).toEqual(["sub", "z"]);
    expect(await names(2)).toEqual(["sub", "sub/deep", "sub/f", "z"]);
    expect(await names(9)).toEqual(["sub", "sub/deep", "sub/f", "z"]);
  });

  test("entries are moved, also over a file and into directories not there yet", async () => {
    await writeFile(outside(`${directory}/from`), "new");
    await writeFile(outside(`${directory}/over`), "old");
    const over = await client().move({ source: `${directory}/from`, destination: `${directory}/over` });
    expect(over.entry).toMatchObject({ path: `${directory}/over`, size: 3n });
    const moved = await client().move({ source: `${directory}/over`, destination: `${directory}/x/y/over` });
    expect(moved.entry).toMatchObject({ path: `${directory}/x/y/over` });
    expect(await stat(outside(`${directory}/x/y`))).toMatchObject({ uid: user.uid });
  });

  test("removing is recursive, and fine when nothing is there", async () => {
    const path = `${directory}/removed`;
    await client().makeDir({ path: `${path}/a/b` });
    await writeFile(outside(`${path}/a/f`), "");
    await client().remove({ path });
    await expect(lstat(outside(path))).rejects.toMatchObject({ code: "ENOENT" });
    await client().remove({ path });
    await client().remove({ path: `${path}/below` });
  });
});

test("paths start at the home of the user who asks", async () => {
  await agent.filesystem().makeDir({ path: "relative/x" });
  expect((await agent.filesystem().stat({ path: "~/relative/x" })).entry?.path).toBe(`${user.home}/relative/x`);
  const { entry } = await agent.filesystem({ user: "other" }).makeDir({ path: "mine" });
  expect(entry).toMatchObject({ path: "/home/other/mine", owner: "other" });
});

test("a link is described by where it leads, and not followed when listing or removing", async () => {
  const client = agent.filesystem();
  const path = `${user.home}/links`;
  await client.makeDir({ path: `${path}/target/inner` });
  await symlink("target", outside(`${path}/link`));
  await symlink("/no/such", outside(`${path}/broken`));
  expect((await client.stat({ path: `${path}/link` })).entry).toMatchObject({
    type: FileType.DIRECTORY,
    permissions: "lrwxrwxrwx",
    symlinkTarget: `${path}/target`,
  });
  expect((await client.stat({ path: `${path}/broken` })).entry).toMatchObject({
    type: FileType.SYMLINK,
    symlinkTarget: "/no/such",
  });
  const listed = await client.listDir({ path, depth: 3 });
  expect(listed.entries.map((entry) => entry.name)).toEqual(["broken", "link", "target", "inner"]);
  const through = await client.listDir({ path: `${path}/link` });
  expect(through.entries.map((entry) => entry.path)).toEqual([`${path}/link/inner`]);
  await client.remove({ path: `${path}/link` });
  expect(await readdir(outside(`${path}/target`))).toEqual(["inner"]);
});

test("names that are not ASCII, and special files, are listed", async () => {
  const client = agent.filesystem();
  await client.makeDir({ path: "odd" });
  await mkdir(outside(`${user.home}/odd/\u00fcber \u{1f600}`));
  expect((await client.listDir({ path: "odd" })).entries.map((entry) => entry.name)).toEqual(["\u00fcber \u{1f600}"]);
  expect((await client.stat({ path: "/dev/null" })).entry).toMatchObject({ type: FileType.UNSPECIFIED, owner: "root" });
  expect((await client.stat({ path: "/" })).entry).toMatchObject({ name: "/", type: FileType.DIRECTORY });
});

describe("what cannot be done is refused", () => {
  const home = user.home;
  test.each<[string, (client: ReturnType<GuestAgent["filesystem"]>) => Promise<unknown>, Code, string]>([
    ["stat of nothing", (client) => client.stat({ path: "nothing" }), Code.NotFound, `file not found: ${home}/nothing`],
    [
      "listing nothing",
      (client) => client.listDir({ path: "/nothing" }),
      Code.NotFound,
      "directory not found: /nothing",
    ],
    [
      "listing a file",
      (client) => client.listDir({ path: "/etc/passwd" }),
      Code.InvalidArgument,
      "path is not a directory: /etc/passwd",
    ],
    [
      "making what exists",
      (client) => client.makeDir({ path: home }),
      Code.AlreadyExists,
      `directory already exists: ${home}`,
    ],
    [
      "making over a file",
      (client) => client.makeDir({ path: "/etc/passwd" }),
      Code.InvalidArgument,
      "path already exists but it is not a directory: /etc/passwd",
    ],
    [
      "making below a file",
      (client) => client.makeDir({ path: "/etc/passwd/x" }),
      Code.InvalidArgument,
      "path is a file: /etc/passwd",
    ],
    [
      "moving nothing",
      (client) => client.move({ source: "/nothing", destination: "/tmp/x" }),
      Code.NotFound,
      "source file not found: /nothing",
    ],
    [
      "moving to another file system",
      (client) => client.move({ source: "/etc/group", destination: "/mnt/group" }),
      Code.FailedPrecondition,
      "error moving",
    ],
    [
      "removing everything",
      (client) => client.remove({ path: "/home/.." }),
      Code.InvalidArgument,
      "the root directory cannot be removed",
    ],
    [
      "another's home by ~",
      (client) => client.stat({ path: "~other/x" }),
      Code.InvalidArgument,
      "cannot expand user-specific home directory",
    ],
    ["a path with NUL", (client) => client.stat({ path: "a\0b" }), Code.InvalidArgument, "NUL"],
    ["a path too long", (client) => client.stat({ path: `/${"x".repeat(300)}` }), Code.InvalidArgument, "too long"],
    [
      "an unknown watcher",
      (client) => client.getWatcherEvents({ watcherId: "no" }),
      Code.NotFound,
      "watcher with id no not found",
    ],
    [
      "removing an unknown watcher",
      (client) => client.removeWatcher({ watcherId: "no" }),
      Code.NotFound,
      "watcher with id no not found",
    ],
    [
      "watching nothing",
      (client) => client.createWatcher({ path: "/nothing" }),
      Code.NotFound,
      "path /nothing not found",
    ],
    [
      "watching a file",
      (client) => client.createWatcher({ path: "/etc/passwd" }),
      Code.InvalidArgument,
      "is not a directory",
    ],
  ])("%s", async (_, action, code, message) => {
    const error = await failure(action(agent.filesystem()));
    expect(error.rawMessage).toContain(message);
    expect(error.code).toBe(code);
  });

  test("anything for an unknown user", async () => {
    const error = await failure(agent.filesystem({ user: "stranger" }).listDir({ path: "/" }));
    expect(error).toMatchObject({ code: Code.Unauthenticated, rawMessage: "invalid username: 'stranger'" });
  });
});
