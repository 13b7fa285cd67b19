/** The examples of the documentation, run as the programs that they are: what they print is what their comments say. */
import { mkdtemp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { run, runUnchecked } from "@wrenn/system";
import { afterAll, beforeAll, expect, test } from "vitest";
import { useSdk } from "../harness/sdk.ts";

const sdk = useSdk();

const documents = ["README.md", "packages/sdk/README.md", "docs/guide.md"];

interface Example {
  /** The document and the heading that it is below. */
  name: string;
  source: string;
  expected: string[];
}

/** Behind a `console.log`, what it prints; on lines of their own, what has been printed. */
const commentOfOutput = /console\.log\(.*\)[;,]? \/\/ (.*)$|^\/\/ (\d+ bytes .*|directory .*|file .*)$/;

async function examplesOf(document: string): Promise<Example[]> {
  const text = await readFile(path.join(repositoryRoot, document), "utf8");
  let heading = "";
  const examples: Example[] = [];
  for (const [, title, source] of text.matchAll(/^#+ (.*)$|^```ts\n([\s\S]*?)^```$/gm)) {
    heading = title ?? heading;
    if (source === undefined) continue;
    const expected = source.split("\n").flatMap((line) => {
      const match = commentOfOutput.exec(line);
      return match?.[1] ?? match?.[2] ?? [];
    });
    examples.push({ name: `${document}: ${heading}, ${examples.length}`, source, expected });
  }
  return examples;
}

const examples = (await Promise.all(documents.map(examplesOf))).flat();
let directory: string;

const compilerOptions = {
  target: "ES2022",
  lib: ["ES2023", "ESNext.Disposable"],
  module: "NodeNext",
  types: ["node"],
  strict: true,
  noUncheckedIndexedAccess: true,
  noPropertyAccessFromIndexSignature: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
};

beforeAll(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "wrenn-examples-"));
  await symlink(path.join(repositoryRoot, "node_modules"), path.join(directory, "node_modules"));
  await writeFile(path.join(directory, "package.json"), JSON.stringify({ type: "module" }));
  await writeFile(path.join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  await Promise.all(
    examples.map(async ({ source }, index) => writeFile(path.join(directory, `example-${index}.ts`), source)),
  );
  await mkdir(path.join(directory, "work"));
  await run(path.join(repositoryRoot, "node_modules/.bin/tsc"), ["-p", directory]);
});
afterAll(async () => {
  await rm(directory, { recursive: true, force: true });
});

test("there are examples of every task of the guide", () => {
  expect(examples.length).toBeGreaterThan(13);
});

test.each(examples.map((example, index) => ({ ...example, index })))("$name", async ({ index, expected }) => {
  const { server } = sdk();
  const { exitCode, stdout, stderr } = await runUnchecked(
    process.execPath,
    [path.join(directory, `example-${index}.js`)],
    {
      cwd: path.join(directory, "work"),
      env: { PATH: process.env["PATH"], WRENN_API_URL: server.url, WRENN_API_KEY: server.key },
    },
  );
  expect(stderr).toBe("");
  expect(stdout.trimEnd().split("\n").filter(Boolean)).toEqual(expected);
  expect(exitCode).toBe(0);
});
