import { describe, expect, it } from "vitest";
import { chooseTarget, endsAsDirectory, type Found, type Kind, type Source } from "./target.ts";

const there: Record<string, Kind> = {
  "/": "directory",
  ".": "directory",
  "/d": "directory",
  "/d/": "directory",
  "/d/.": "directory",
  "/d/name": "directory",
  "/f": "file",
  "/f/": "file",
  "/link": "file",
  "/e": "directory",
  "/e/name": "file",
  "/dev/null": "other",
};

function look(path: string): Promise<Found | null> {
  const kind = there[path];
  return Promise.resolve(kind === undefined ? null : { kind, realPath: path === "/link" ? "/f" : path });
}

const file: Source = { isDirectory: false, name: "name", contentsOnly: false };
const directory: Source = { isDirectory: true, name: "name", contentsOnly: false };
const contents: Source = { isDirectory: true, name: "name", contentsOnly: true };
const stream: Source = { isDirectory: false, name: "", contentsOnly: false };

describe("a copy ends up", () => {
  it.each([
    ["a file at a free path", file, "/new", "/new", null],
    ["a file in the place of another", file, "/f", "/f", "file"],
    ["a file where a link leads", file, "/link", "/f", "file"],
    ["a file in a device", file, "/dev/null", "/dev/null", "other"],
    ["a file in a directory", file, "/", "/name", null],
    ["a file in a directory that has one of that name", file, "/e", "/e/name", "file"],
    ["a file in the directory we are in", file, ".", "name", null],
    ["a directory at a free path", directory, "/new", "/new", null],
    ["a directory at a free path with a slash", directory, "/new/", "/new", null],
    ["a directory in another", directory, "/", "/name", null],
    ["a directory merged with the one of its name", directory, "/d", "/d/name", "directory"],
    ["what is in a directory at a free path", contents, "/new", "/new", null],
    ["what is in a directory merged with another", contents, "/d/", "/d/", "directory"],
    ["a stream at a free path", stream, "/new", "/new", null],
  ] as const)("%s", async (_what, source, given, path, existing) => {
    expect(await chooseTarget(source, given, look)).toEqual({ path, existing });
  });

  it.each([
    ["a file below what is no directory", file, "/f/new", "file_not_found"],
    ["a file in a directory that is not there", file, "/nowhere/", "file_not_found"],
    ["a directory below one that is not there", directory, "/nowhere/new", "file_not_found"],
    ["a file onto a directory of its name", file, "/d", "wrong_file_type"],
    ["a directory onto a file", directory, "/f", "wrong_file_type"],
    ["a directory onto a file of its name", directory, "/e", "wrong_file_type"],
    ["anything into a file", file, "/f/", "wrong_file_type"],
    ["a stream into a directory", stream, "/d", "wrong_file_type"],
  ] as const)("nowhere: %s", async (_what, source, given, code) => {
    await expect(chooseTarget(source, given, look)).rejects.toMatchObject({ code });
  });
});

it.each(["", ".", "..", "/", "a/", "a/.", "a/.."])("%j can only be a directory", (path) => {
  expect(endsAsDirectory(path)).toBe(true);
});

it.each(["a", "a.", "...", "/a/..b", ".hidden"])("%j can be a file", (path) => {
  expect(endsAsDirectory(path)).toBe(false);
});
