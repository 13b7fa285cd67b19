import { allowedOrigin } from "@wrenn/control-plane/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { useApiServer } from "../harness/api-server.ts";
import { type Browser, openBrowser } from "../harness/browser.ts";

const api = useApiServer();
let browser: Browser;

beforeAll(async () => {
  browser = await openBrowser();
});
afterAll(async () => {
  await browser.close();
});

test("a person who opens the server's address can read the API, and try it with a key", async () => {
  const { server, sandbox } = api();
  const { page, requested, complaints } = browser;
  await page.goto(server.url);
  expect(page.url()).toBe(`${server.url}/docs`);
  await page.getByRole("heading", { name: /^Wrenn/ }).waitFor();
  const { paths } = (await (await fetch(`${server.url}/openapi.json`)).json()) as { paths: Record<string, object> };
  const operations = Object.values(paths).flatMap((path) => Object.keys(path));
  expect(await page.locator(".opblock").count()).toBe(operations.length);

  await page.getByRole("button", { name: "Authorize" }).click();
  await page.getByLabel("auth-apikey-value").or(page.locator("#api_key_value")).fill(server.key);
  await page.getByRole("button", { name: "Apply credentials" }).first().click();
  await page.locator(".btn-done").first().click();

  const list = page.locator(".opblock-get", { has: page.locator('[data-path="/v1/sandboxes"]') });
  await list.locator(".opblock-summary-control").click();
  await list.getByRole("button", { name: "Execute" }).click();
  const answer = list.locator(".live-responses-table");
  await answer.getByText(sandbox.id).first().waitFor();
  expect(await answer.locator("tbody .response-col_status").first().textContent()).toContain("200");

  expect(requested.length).toBeGreaterThan(8);
  expect(requested.filter((url) => !url.startsWith(`${server.url}/`) && !url.startsWith("data:"))).toEqual([]);
  expect(complaints).toEqual([]);
});

test("the page may neither be framed nor load or send anything elsewhere", async () => {
  const { server } = api();
  for (const address of ["/docs", "/docs/static/swagger-initializer.js", "/docs/static/swagger-ui.css"]) {
    const { headers } = await fetch(`${server.url}${address}`);
    const policy = headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    expect(headers.get("x-content-type-options")).toBe("nosniff");
  }
});

test("a page of an allowed origin uses the API and a sandbox, and one of another reads nothing", async () => {
  const { server, sandbox } = api();
  const { page } = browser;
  const ask = async (origin: string): Promise<unknown> => {
    // That a page may reach this machine at all is a question of Chromium's own.
    await page.context().grantPermissions(["local-network-access"], { origin });
    await page.route(`${origin}/`, async (route) => route.fulfill({ contentType: "text/html", body: "<p>page" }));
    await page.goto(`${origin}/`);
    return page.evaluate(
      async ({ url, key, id }) => {
        const headers = { "X-API-Key": key, "Content-Type": "application/json" };
        try {
          const list = await fetch(`${url}/v1/sandboxes`, { headers });
          const stat = await fetch(`${url}/filesystem.Filesystem/Stat`, {
            method: "POST",
            headers: { ...headers, "Wrenn-Sandbox-Id": id, "Connect-Protocol-Version": "1" },
            body: JSON.stringify({ path: "/etc/passwd" }),
          });
          return [list.status, list.headers.has("X-Request-Id"), stat.status, await stat.text()];
        } catch (error) {
          return String(error);
        }
      },
      { url: server.url, key: server.key, id: sandbox.id },
    );
  };
  expect(await ask(allowedOrigin)).toEqual([200, true, 200, expect.stringContaining("/etc/passwd")]);
  expect(await ask("https://elsewhere.example")).toContain("Failed to fetch");
});
