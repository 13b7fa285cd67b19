import { pipeline } from "node:stream/promises";
import { buffer } from "node:stream/consumers";
import { Readable } from "node:stream";
import { expect, it } from "vitest";
import { startPiped } from "./piped-subprocess.ts";

it("a program is fed and read at once, whatever the length", async () => {
  const cat = startPiped("cat", []);
  const pieces = Array.from({ length: 64 }, (_, index) => Buffer.alloc(65_536, index));
  const [output] = await Promise.all([buffer(cat.stdout), pipeline(Readable.from(pieces), cat.stdin)]);
  expect(output.equals(Buffer.concat(pieces))).toBe(true);
  expect(await cat.ended).toEqual({ exitCode: 0, stderr: "" });
});

it("its exit code and its own words are told", async () => {
  const program = startPiped("sh", ["-c", "echo no room >&2; exit 3"]);
  program.stdout.resume();
  expect(await program.ended).toEqual({ exitCode: 3, stderr: "no room\n" });
});

it("one that is not installed is a dependency that is missing", async () => {
  await expect(startPiped("no-such-program", []).ended).rejects.toMatchObject({ code: "dependency_missing" });
});

it("its umask is its own", async () => {
  const program = startPiped("sh", ["-c", "umask"], { umask: 0o027 });
  expect((await buffer(program.stdout)).toString().trim()).toBe("0027");
  expect(process.umask()).not.toBe(0o027);
});

it("one that is killed has ended", async () => {
  const program = startPiped("sleep", ["1000"]);
  program.stdout.resume();
  program.kill();
  expect(await program.ended).toMatchObject({ exitCode: 128 });
});
