import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { cliEntry } from "@wrenn/cli";
import { pollUntil, run, runUnchecked } from "@wrenn/system";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { useCli } from "../harness/api-cli.ts";
import { useApiServer } from "../harness/api-server.ts";

const api = useApiServer();
const cli = useCli(api);
let root: string;
let here: string;

beforeAll(async () => {
  root = await mkdtemp(path.join(tmpdir(), "wrenn-cp-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** Each test has directories of its own, here and in the sandbox, of the same name. */
let there = 0;
beforeEach(async () => {
  there += 1;
  here = path.join(root, String(there));
  await mkdir(here);
  await inSandbox(`mkdir ${there}`);
});

const at = (file = ""): string => `${api().sandbox.id}:${there}/${file}`;

async function inSandbox(script: string): Promise<string> {
  const result = await cli().run(["exec", api().sandbox.id, "--", "bash", "-c", script]);
  expect(result.stderr).toBe("");
  return result.stdout.toString();
}

/** What is in a directory of the sandbox, hidden files too. */
async function namesThere(directory = ""): Promise<string[]> {
  return (await inSandbox(`ls -A ${there}/${directory}`)).split("\n").slice(0, -1);
}

function cp(args: readonly string[], options: Parameters<ReturnType<typeof cli>["run"]>[1] = {}) {
  return cli().run(["cp", ...args], { cwd: here, ...options });
}

async function copied(...args: readonly string[]): Promise<void> {
  const { exitCode, stdout, stderr } = await cp(args);
  expect({ exitCode, stdout: stdout.toString(), stderr }).toEqual({ exitCode: 0, stdout: "", stderr: "" });
}

async function hashOf(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

describe("a file", () => {
  it("is copied both ways, with its bytes and its permissions", async () => {
    const content = randomBytes(300_001);
    await writeFile(path.join(here, "tool"), content);
    await chmod(path.join(here, "tool"), 0o751);
    await copied("tool", at());
    expect(await inSandbox(`stat -c '%a %U %s' ${there}/tool`)).toBe(`751 user ${content.length}\n`);
    await copied(at("tool"), "back");
    expect((await readFile(path.join(here, "back"))).equals(content)).toBe(true);
    expect((await stat(path.join(here, "back"))).mode & 0o7777).toBe(0o751);
    expect(await readdir(here)).toEqual(["back", "tool"]);
    expect(await namesThere()).toEqual(["tool"]);
  });

  it("replaces a file, also by way of a link, and lands in a directory under its own name", async () => {
    await writeFile(path.join(here, "new"), "new");
    await inSandbox(`cd ${there}; echo old > file; ln -s file link; mkdir dir`);
    await copied("new", at("link"));
    await copied("new", at("dir"));
    await copied("new", at("dir/other"));
    expect(await inSandbox(`cd ${there}; cat file; readlink link; cd dir; ls; cat new other`)).toBe(
      "newfile\nnew\nother\nnewnew",
    );
    await writeFile(path.join(here, "file"), "old");
    await symlink("file", path.join(here, "link"));
    await mkdir(path.join(here, "dir"));
    await copied(at("dir/new"), "link");
    await copied(at("dir/new"), "dir/");
    expect(await readFile(path.join(here, "file"), "utf8")).toBe("new");
    expect(await readlink(path.join(here, "link"))).toBe("file");
    expect(await readdir(path.join(here, "dir"))).toEqual(["new"]);
  });

  it("goes through standard input and standard output byte for byte", async () => {
    const input = randomBytes(1_500_001);
    expect(await cp(["-", at("file")], { input })).toMatchObject({ exitCode: 0, stderr: "" });
    const output = await cp([at("file"), "-"]);
    expect(output).toMatchObject({ exitCode: 0, stderr: "" });
    expect(output.stdout.equals(input)).toBe(true);
  });

  it("may have any name, be empty, and lead to a device", async () => {
    const names = ["-dash", "white space", "new\nline", "größe 漢字", "'quotes\"", "*", "\\0", "a:b"];
    for (const name of names) {
      await writeFile(path.join(here, name), "");
      await copied(`./${name}`, at());
      await copied(at(name), `./${name}.back`);
      expect((await stat(path.join(here, `${name}.back`))).size).toBe(0);
    }
    await copied(at("-dash"), "/dev/null");
    expect((await stat("/dev/null")).isCharacterDevice()).toBe(true);
  });

  it("brings no set-user-id bit with it", async () => {
    await inSandbox(`cd ${there}; mkdir d; touch d/file; chmod 4755 d/file`);
    await copied(at("d"), "d");
    await copied(at("d/file"), "file");
    expect((await stat(path.join(here, "d/file"))).mode & 0o7777).toBe(0o755);
    expect((await stat(path.join(here, "file"))).mode & 0o7777).toBe(0o755);
  });

  it("of many megabytes is copied both ways in little memory", async () => {
    const file = path.join(here, "large");
    // No holes: those would pass in no time, and need no memory wherever they are kept.
    await run("bash", ["-c", "head -c 700M /dev/zero > large; head -c 1000 /dev/urandom >> large"], { cwd: here });
    const script =
      '"$0" "$1" cp "$2" "$3" & pid=$!; peak=0; ' +
      "while read -r _ kib _ < <(grep VmHWM /proc/$pid/status 2>/dev/null); do peak=$kib; sleep 0.1; done; wait $pid && echo $peak";
    const measured = async (from: string, to: string): Promise<number> => {
      const options = { cwd: here, env: cli().env, timeoutMs: 110_000 };
      return Number((await run("bash", ["-c", script, process.execPath, cliEntry, from, to], options)).stdout) / 1_024;
    };
    expect(await measured("large", at())).toBeLessThan(300);
    expect(await measured(at("large"), "back")).toBeLessThan(300);
    expect(await hashOf(path.join(here, "back"))).toBe(await hashOf(file));
  });
});

/** A tree with all that a copy must keep. Times are those of whole seconds. */
const makeTree = `
  mkdir -p tree/empty tree/private/deep tree/.hidden && cd tree
  printf '#!/bin/sh\\n' > script && chmod 755 script
  head -c 100000 /dev/urandom > private/data && chmod 600 private/data && chmod 750 private
  echo x > .hidden/file; ln -s script link; ln -s /nowhere/at/all dangling; ln script hard
  chmod 700 .
  touch -- '-dash' 'white space' $'new\\nline' $'not utf-8 \\xff\\xfe' "$(printf 'long%.0s' $(seq 60))"
  mkdir -p "$(printf 'directory/%.0s' $(seq 30))" && echo deep > "$(printf 'directory/%.0s' $(seq 30))file"
  find . -depth -exec touch -h -d '2020-02-02 02:02:02 UTC' {} +
`;
/** Everything there is to know of a tree but owners and which names are of one file, in an order of its own. */
const describeTree = `find . -printf '%p %y %m %l %TY\\n' | LC_ALL=C sort; find . -type f -exec sha256sum {} + | LC_ALL=C sort`;

describe("a directory", () => {
  it("is copied both ways with modes, times, links, empty directories and odd names", async () => {
    await run("bash", ["-c", makeTree], { cwd: here });
    const original = (await run("bash", ["-c", describeTree], { cwd: path.join(here, "tree") })).stdout;
    await copied("tree", at());
    expect(await inSandbox(`cd ${there}/tree; ${describeTree}`)).toBe(original);
    await copied(at("tree"), "back");
    expect((await run("bash", ["-c", describeTree], { cwd: path.join(here, "back") })).stdout).toBe(original);
    expect(await namesThere()).toEqual(["tree"]);
    expect(await readdir(here)).toEqual(["back", "tree"]);
  });

  it("lands in a directory that exists, or in its place; dir/. means what is in it", async () => {
    await mkdir(path.join(here, "src"));
    await writeFile(path.join(here, "src/file"), "new");
    await copied("src", at("fresh"));
    await copied("src", at("fresh"));
    await copied("src/", at("slash/"));
    await inSandbox(`cd ${there}; mkdir merged; echo old > merged/file; echo kept > merged/kept`);
    await copied("src/.", at("merged"));
    expect(await inSandbox(`cd ${there}; LC_ALL=C ls -R; cat merged/file merged/kept`)).toBe(
      ".:\nfresh\nmerged\nslash\n\n./fresh:\nfile\nsrc\n\n./fresh/src:\nfile\n\n./merged:\nfile\nkept\n\n./slash:\nfile\nnewkept\n",
    );
    await mkdir(path.join(here, "out"));
    await writeFile(path.join(here, "out/own"), "own");
    await copied(at("merged"), "out");
    await copied(at("merged/."), "out");
    await copied(at("fresh"), "out/merged");
    expect((await run("bash", ["-c", "LC_ALL=C ls -R out; cat out/own out/file"], { cwd: here })).stdout).toBe(
      "out:\nfile\nkept\nmerged\nown\n\nout/merged:\nfile\nfresh\nkept\n\nout/merged/fresh:\nfile\nsrc\n\n" +
        "out/merged/fresh/src:\nfile\nownnew",
    );
  });

  it("merged with one that a link in it leads out of does not follow the link", async () => {
    await mkdir(path.join(here, "outside"));
    await mkdir(path.join(here, "into"));
    await symlink("../outside", path.join(here, "into/d"));
    await inSandbox(`cd ${there}; mkdir -p src/d; echo x > src/d/file`);
    const result = await cp([at("src/."), "into"]);
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain("(wrong_file_type)");
    expect(await readdir(path.join(here, "outside"))).toEqual([]);
    expect(await readdir(path.join(here, "into"))).toEqual(["d"]);
  });

  it("that cannot be read in full is not half there", async () => {
    const readable = { cwd: here };
    await run("bash", ["-c", "mkdir tree; echo x > tree/a; ln -s loop tree/loop"], readable);
    // A directory that vanishes while it is read is what a user sees of most failures; a full disk of the others.
    const result = await cp([`${here}/tree`, `${api().sandbox.id}:/mnt/tree`], {});
    expect(result).toMatchObject({ exitCode: 0 });
    await writeFile(path.join(here, "tree/large"), randomBytes(3 * 1_048_576));
    const full = await cp(["tree", `${api().sandbox.id}:/mnt/other`]);
    expect(full.exitCode).toBe(1);
    expect(full.stderr).toContain("(guest_out_of_disk)");
    expect(await inSandbox("ls -A /mnt; rm -r /mnt/tree")).toBe("tree\n");
  });
});

describe("an interrupted copy", () => {
  it("into the sandbox leaves nothing of it under any name", async () => {
    // A pipe that never ends: the copy is under way for as long as we like.
    const script = '(head -c 3000000 /dev/zero; sleep 1000) | "$0" "$1" cp - "$2"';
    const args = ["-c", script, process.execPath, cliEntry, at("file")];
    const abort = new AbortController();
    const copy = runUnchecked("bash", args, { env: cli().env, signal: abort.signal }).catch(() => undefined);
    await until(async () => (await namesThere()).length > 0);
    abort.abort();
    await copy;
    await until(async () => (await namesThere()).length === 0);
    expect(await namesThere()).toEqual([]);
  });

  it.each(["file", "tree"])("out of the sandbox (%s) leaves nothing of it under any name", async (name) => {
    await inSandbox(`cd ${there}; mkdir tree; truncate -s 40G file tree/file`);
    const copy = cli().spawn(["cp", at(name), "."], { cwd: here });
    await until(async () => (await readdir(here)).length > 0);
    expect(await readdir(here)).toEqual([expect.stringMatching(/^\.wrenn-cp-/)]);
    copy.child.kill("SIGINT");
    expect(await copy.result()).toMatchObject({ exitCode: 130, stderr: "" });
    expect(await readdir(here)).toEqual([]);
    await inSandbox(`rm -r ${there}/*`);
  });

  it("of a directory into the sandbox leaves nothing of it under any name", async () => {
    await mkdir(path.join(here, "tree"));
    await run("bash", ["-c", "head -c 500M /dev/zero > tree/large"], { cwd: here });
    const copy = cli().spawn(["cp", "tree", at("tree")], { cwd: here });
    // Looked at from outside, which is quick enough to see it under way.
    const inside = api().guest.outside(`/home/user/${there}`);
    await until(async () => (await readdir(inside)).length > 0);
    copy.child.kill("SIGTERM");
    expect(await copy.result()).toMatchObject({ exitCode: 143, stderr: "" });
    expect(await namesThere()).toEqual([]);
  });
});

describe("a copy says", () => {
  it.each([
    ["that a file here is not there", ["nothing", "there:x"], "local_file_failed"],
    ["that a file there is not there", ["there:nothing", "x"], "file_not_found"],
    ["that there is no directory here", ["there:/etc/passwd", "nowhere/x"], "file_not_found"],
    ["that there is no directory there", ["/etc/passwd", "there:nowhere/x"], "file_not_found"],
    ["that a slash needs a directory", ["/etc/passwd", "there:new/"], "file_not_found"],
    ["that a directory does not fit onto a file", ["there:/etc", "/etc/passwd"], "wrong_file_type"],
    ["that a device there is not replaced", ["/etc/passwd", "there:/dev/null"], "wrong_file_type"],
    ["that a directory is no output", ["there:/etc", "-"], "wrong_file_type"],
    ["that a file of the user's is needed", ["there:/etc/passwd", "/proc/nothing"], "local_file_failed"],
    ["that one end is to be in a sandbox", ["a", "b"], "invalid_request"],
    ["that only one end can be in a sandbox", ["there:a", "there:b"], "invalid_request"],
    ["which sandbox it does not know", ["ffffffff:a", "b"], "sandbox_not_found"],
  ])("%s", async (_what, args, code) => {
    const result = await cp(args.map((place) => place.replace(/^there/, api().sandbox.id)));
    expect(result.exitCode).toBe(1);
    expect(result.stderr).toContain(`(${code})`);
    expect(await readdir(here)).toEqual([]);
  });

  it("--json: what went where, and how much", async () => {
    await writeFile(path.join(here, "file"), "12345");
    const { stdout } = await cp(["--json", "file", at()]);
    expect(JSON.parse(stdout.toString())).toEqual({
      source: "file",
      destination: at("file"),
      bytes: expect.any(Number) as number,
      duration_ms: expect.any(Number) as number,
    });
    const out = await cp(["--json", at("file"), "back"]);
    expect(JSON.parse(out.stdout.toString())).toMatchObject({ destination: "back", bytes: 5 });
  });

  it("on a terminal how far it is, and leaves nothing of that behind", async () => {
    await inSandbox(`truncate -s 400M ${there}/large`);
    const terminal = cli().terminal(["cp", at("large"), path.join(here, "large")], { cols: 120 });
    expect(await terminal.result()).toMatchObject({ exitCode: 0 });
    expect(terminal.shown).toMatch(/copying .*large … [\d.]+ [KMG]?i?B of 400\.0 MiB, [\d.]+ [KMG]iB\/s, [\d.]+ s/);
    expect(terminal.shown.endsWith("\r\u001B[K")).toBe(true);
  });
});

async function until(condition: () => Promise<boolean>): Promise<void> {
  const met = await pollUntil(async () => ((await condition()) ? true : null), { timeoutMs: 60_000, intervalMs: 20 });
  if (met === null) throw new Error("it did not happen");
}
