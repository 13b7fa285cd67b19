/** `@wrenn/sdk` as it would be published: what is in it, and that a fresh project can use it, in Node and in a browser's bundle. */
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { run, runUnchecked } from "@wrenn/system";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bundleForBrowser } from "./harness/browser-bundle.ts";
import { type PublishedSdk, publishSdk } from "./harness/published-sdk.ts";

let published: PublishedSdk;

beforeAll(async () => {
  published = await publishSdk();
});
afterAll(async () => {
  await published.remove();
});

/** Uses a bit of everything, so that all of the declarations are looked at. */
const program = `
import { checkHealth, Sandbox, WrennError, type CommandOutput, type FileEntry, type SandboxInfo } from "@wrenn/sdk";

export async function use(apiKey: string | undefined, signal?: AbortSignal): Promise<string> {
  const health = await checkHealth({ apiUrl: "http://127.0.0.1:1", signal });
  await using sandbox = await Sandbox.create({ apiKey, memoryMib: 256, metadata: { a: "b" }, timeoutMs: null });
  const info: SandboxInfo = sandbox.info;
  const output: CommandOutput = await sandbox.commands.run(["true"], { stdin: new ReadableStream<Uint8Array>(), signal });
  const entry: FileEntry = await sandbox.files.write("a", new Blob(["b"]));
  const terminal = await sandbox.pty.create({ cols: 80, rows: 24, onData: (bytes) => void bytes.byteLength });
  await terminal.sendInput("x");
  for await (const other of Sandbox.list({ limit: 1 })) info.createdAt.getTime() === other.createdAt.getTime();
  // @ts-expect-error there is no such status
  void Sandbox.list({ status: "asleep" });
  return [health.status, output.stdout, entry.modifiedAt.toISOString()].join();
}

export function explain(error: unknown): string {
  if (!(error instanceof WrennError)) return "";
  return error.code === "file_not_found" ? error.suggestion : (error.requestId ?? "");
}
`;

describe("the packages", () => {
  test.each([
    ["sdk", ["README.md"]],
    ["contract", []],
  ] as const)("%s has what is needed, and nothing else", (name, more) => {
    const files = published.files[name];
    const needed = ["package.json", "LICENSE", "dist/index.js", "dist/index.d.ts", ...more];
    expect(files).toEqual(expect.arrayContaining(needed));
    const known = /^(package\.json|LICENSE|README\.md|dist\/[\w/-]+\.(js|d\.ts)(\.map)?|src\/[\w/-]+\.ts)$/;
    expect(files.filter((file) => !known.test(file))).toEqual([]);
    expect(files.filter((file) => file.includes("test"))).toEqual([]);
  });

  test("name each other's version, and nothing that only this repository has", async () => {
    const manifestOf = async (name: string): Promise<Record<string, unknown>> => {
      const file = path.join(published.project, "node_modules/@wrenn", name, "package.json");
      return JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>;
    };
    const [sdk, contract] = [await manifestOf("sdk"), await manifestOf("contract")];
    expect(sdk).toMatchObject({ dependencies: { "@wrenn/contract": contract["version"] }, sideEffects: false });
    for (const manifest of [sdk, contract]) {
      expect(manifest).not.toHaveProperty("private");
      expect(manifest).toMatchObject({ type: "module", license: "Apache-2.0", engines: { node: expect.any(String) } });
      expect(manifest["description"]).toMatch(/\w/);
    }
  });
});

describe("a fresh project", () => {
  test("imports it in Node", async () => {
    const script = `
      import { Sandbox, TimeoutError, WrennError } from "@wrenn/sdk";
      const error = await Sandbox.connect("sb-1", { apiUrl: "http://127.0.0.1:1", apiKey: "x", maxRetries: 0 }).catch((e) => e);
      console.log(error instanceof WrennError, error.code, new TimeoutError("response_timeout").retryable);
    `;
    await writeFile(path.join(published.project, "main.js"), script);
    const { stdout } = await run(process.execPath, ["main.js"], { cwd: published.project });
    expect(stdout).toBe("true server_unreachable true\n");
  });

  // Without Node's types, and with declarations checked: what the SDK declares must need nothing but what a browser has.
  test.each([
    ["node16", "node16"],
    ["nodenext", "nodenext"],
    ["bundler", "esnext"],
  ])("is typed with moduleResolution %s", async (moduleResolution, module) => {
    const compilerOptions = {
      ...{
        module,
        moduleResolution,
        target: "ES2022",
        lib: ["ES2023", "ESNext.Disposable", "DOM", "DOM.AsyncIterable"],
      },
      ...{ types: [], strict: true, noEmit: true, skipLibCheck: false, exactOptionalPropertyTypes: true },
    };
    await writeFile(path.join(published.project, "main.ts"), program);
    await writeFile(
      path.join(published.project, "tsconfig.json"),
      JSON.stringify({ compilerOptions, files: ["main.ts"] }),
    );
    const tsc = path.join(repositoryRoot, "node_modules/.bin/tsc");
    const { exitCode, stdout } = await runUnchecked(tsc, ["-p", "."], { cwd: published.project });
    expect(stdout).toBe("");
    expect(exitCode).toBe(0);
  });

  test("bundles it for a browser, without anything of Node in it", async () => {
    const { code, nodeModules } = await bundleForBrowser(published.project);
    expect(nodeModules).toEqual([]);
    expect(code).not.toMatch(/\bBuffer\.|\brequire\(|__dirname/);
    expect(code).not.toContain("HostAgent");
    // 320 kB, half of it protobuf and half of the rest zod; a change that drags much more in is noticed.
    expect(code.length).toBeLessThan(400_000);
  });
});
