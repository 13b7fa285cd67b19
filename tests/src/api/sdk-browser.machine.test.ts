/** The SDK in a page of a real browser. */
import type * as Sdk from "@wrenn/sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Browser, openBrowser } from "../harness/browser.ts";
import { bundleForBrowser } from "../harness/browser-bundle.ts";
import { useSdk } from "../harness/sdk.ts";

const sdk = useSdk();
let browser: Browser;

/** What a test's script in the page is given. */
interface Page {
  sandboxId: string;
  apiUrl: string;
  apiKey: string;
}

beforeAll(async () => {
  browser = await openBrowser();
  const { url } = sdk().server;
  const { code } = await bundleForBrowser();
  // A page and a script of the server's own origin.
  await browser.page.route(`${url}/page`, (route) =>
    route.fulfill({ contentType: "text/html", body: "<title>page</title>" }),
  );
  await browser.page.route(`${url}/sdk.js`, (route) => route.fulfill({ contentType: "text/javascript", body: code }));
  await browser.page.goto(`${url}/page`);
});
afterAll(async () => {
  await browser.close();
});

/** Runs in the page, with the SDK as its bundle there. What it needs from here it is given. */
async function inPage<Result>(script: (sdk: typeof Sdk, page: Page) => Promise<Result>): Promise<Result> {
  const { server, box } = sdk();
  const page: Page = { sandboxId: box.id, apiUrl: server.url, apiKey: server.key };
  const source = `(async () => (${script.toString()})(await import("/sdk.js"), ${JSON.stringify(page)}))()`;
  return browser.page.evaluate<Result>(source);
}

test("creates, finds and destroys sandboxes", async () => {
  const seen = await inPage(async ({ Sandbox, checkHealth }, page) => {
    const sandbox = await Sandbox.create({ ...page, memoryMib: 256 });
    const ids = [];
    for await (const { id } of Sandbox.list(page)) ids.push(id);
    await sandbox.destroy();
    const { status } = await checkHealth(page);
    return { listed: ids.includes(sandbox.id), status, after: (await sandbox.refresh()).status };
  });
  expect(seen).toEqual({ listed: true, status: "ok", after: "stopped" });
});

test("runs commands, streams their output and gives them input", async () => {
  const seen = await inPage(async ({ Sandbox }, page) => {
    const { commands } = await Sandbox.connect(page.sandboxId, page);
    const pieces: string[] = [];
    const { stdout, exitCode } = await commands.run("cat; echo ü >&2; exit 3", {
      stdin: "from a page",
      onStderr: (_bytes, text) => void pieces.push(text),
    });
    return { stdout, exitCode, pieces };
  });
  expect(seen).toEqual({ stdout: "from a page", exitCode: 3, pieces: ["ü\n"] });
});

test("writes and reads files, streams included", async () => {
  const seen = await inPage(async ({ Sandbox }, page) => {
    const { files } = await Sandbox.connect(page.sandboxId, page);
    const bytes = crypto.getRandomValues(new Uint8Array(60_000));
    const { size } = await files.write("from-a-page", new Blob([bytes, bytes]).stream());
    const back = await files.readBytes("from-a-page", { range: { start: 60_000 } });
    const missing = await files.read("nothing-here").catch((error: Error & { code?: string }) => error.code);
    return { size, same: back.every((byte, at) => byte === bytes[at]), missing };
  });
  expect(seen).toEqual({ size: 120_000, same: true, missing: "file_not_found" });
});

test("watches a directory and types into a terminal", async () => {
  const seen = await inPage(async ({ Sandbox }, page) => {
    const { files, pty } = await Sandbox.connect(page.sandboxId, page);
    await files.makeDirectory("of-a-page");
    let noteChange = (_name: string): void => undefined;
    const changed = new Promise<string>((resolve) => (noteChange = resolve));
    const watch = await files.watch("of-a-page", ({ name }) => noteChange(name));
    await files.write("of-a-page/new", "x");
    const name = await changed;
    watch.stop();
    let shown = "";
    const onData = (bytes: Uint8Array): void => void (shown += new TextDecoder().decode(bytes));
    const terminal = await pty.create({ cols: 91, rows: 31, cmd: "sh", onData });
    await terminal.sendInput("stty size; exit 5\n");
    const { exitCode } = await terminal.wait();
    return { name, closed: await watch.closed, exitCode, sized: shown.includes("31 91") };
  });
  expect(seen).toEqual({ name: "new", closed: "stopped", exitCode: 5, sized: true });
});

test("aborts what runs", async () => {
  const seen = await inPage(async ({ Sandbox }, page) => {
    const { commands } = await Sandbox.connect(page.sandboxId, page);
    const stop = new AbortController();
    const running = commands.run("echo begun; sleep 60", { signal: stop.signal, onStdout: () => stop.abort() });
    const name = await running.then(
      () => "none",
      (error: Error) => error.name,
    );
    // It has been killed by then; that it has ended is seen a moment later.
    const late = performance.now() + 20_000;
    let left = (await commands.list()).length;
    while (left > 0 && performance.now() < late) left = (await commands.list()).length;
    return { name, left };
  });
  expect(seen).toEqual({ name: "AbortError", left: 0 });
});

test("tells a server that is not there", async () => {
  const code = await inPage(async ({ Sandbox }, page) => {
    const away = { ...page, apiUrl: "http://127.0.0.1:1", maxRetries: 0 };
    return Sandbox.connect(page.sandboxId, away).then(
      () => "none",
      (error: Error & { code?: string }) => error.code,
    );
  });
  expect(code).toBe("server_unreachable");
});
