import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { loadEnvironmentFile } from "./installation.ts";

const prefix = "WRENN_TEST_";
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "wrenn-environment-"));
});

afterEach(async () => {
  for (const name of Object.keys(process.env)) if (name.startsWith(prefix)) delete process.env[name];
  await rm(folder, { recursive: true });
});

async function load(...lines: string[]): Promise<Record<string, string | undefined>> {
  await writeFile(path.join(folder, ".env"), lines.map((line) => line.replaceAll("$", prefix)).join("\n"));
  loadEnvironmentFile(folder);
  const ours = Object.entries(process.env).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(ours.map(([name, value]) => [name.slice(prefix.length), value]));
}

it("reads plain, quoted, commented, exported and empty values", async () => {
  const values = await load(
    "# a comment",
    "$PLAIN=postgres://user:pass@host/db?a=b",
    '$DOUBLE="two words # no comment"',
    `$SINGLE='has "quotes" in it'`,
    "$COMMENTED=value # a comment",
    "export $EXPORTED=yes",
    "  $SPACED =  around  ",
    "$EMPTY=",
    '$LINES="one',
    'two"',
  );
  expect(values).toEqual({
    PLAIN: "postgres://user:pass@host/db?a=b",
    DOUBLE: "two words # no comment",
    SINGLE: 'has "quotes" in it',
    COMMENTED: "value",
    EXPORTED: "yes",
    SPACED: "around",
    EMPTY: "",
    LINES: "one\ntwo",
  });
});

it("leaves variables that are set already as they are, also empty ones", async () => {
  process.env[`${prefix}SET`] = "by the shell";
  process.env[`${prefix}EMPTY`] = "";
  expect(await load("$SET=by the file", "$EMPTY=by the file", "$OTHER=by the file")).toEqual({
    SET: "by the shell",
    EMPTY: "",
    OTHER: "by the file",
  });
});

it("needs no file", () => {
  expect(() => {
    loadEnvironmentFile(path.join(folder, "nothing"));
  }).not.toThrow();
});
