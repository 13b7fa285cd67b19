import { createHash } from "node:crypto";
import { Code } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { basicUser, startGuestAgent, type GuestAgent } from "./harness.ts";
import { observe, shell } from "./process-events.ts";

const token = "first-token";
let agent: GuestAgent;
beforeAll(async () => {
  agent = await startGuestAgent();
  const response = await agent.fetch("/init", { method: "POST", body: JSON.stringify({ accessToken: token }) });
  if (response.status !== 204) throw new Error(`/init answered ${response.status}`);
  await agent.fetch("/files?path=secret", { method: "POST", body: "secret", headers: upload });
});
afterAll(() => agent.stop());

const upload = { "Content-Type": "application/octet-stream", "X-Access-Token": token };

function sign(path: string, operation: "read" | "write", username = "", expiration?: number): string {
  const text = [path, operation, username, token, ...(expiration === undefined ? [] : [expiration])].join(":");
  return `v1_${createHash("sha256").update(text).digest("base64").replaceAll("=", "")}`;
}

function signed(
  path: string,
  operation: "read" | "write",
  more: { readonly username?: string; readonly expiration?: number } = {},
): string {
  const query = new URLSearchParams({ path, signature: sign(path, operation, more.username, more.expiration) });
  if (more.username !== undefined) query.set("username", more.username);
  if (more.expiration !== undefined) query.set("signature_expiration", `${more.expiration}`);
  return `/files?${query.toString()}`;
}

const soon = () => Math.floor(Date.now() / 1000) + 60;

describe("once a token is set", () => {
  test("calls need it, in either framing and codec", async () => {
    for (const binary of [false, true]) {
      for (const headers of [{}, { "X-Access-Token": "wrong" }, { "X-Access-Token": "" }]) {
        const client = agent.process({ binary, headers });
        const outcomes = await Promise.allSettled([client.list({}), observe(client.start(shell("true")))]);
        for (const outcome of outcomes) {
          expect(outcome).toMatchObject({ status: "rejected", reason: { code: Code.Unauthenticated } });
        }
      }
      const client = agent.process({ binary, headers: { "X-Access-Token": token } });
      expect((await observe(client.start(shell("echo in")))).stdout).toBe("in\n");
    }
  });

  test.each(["/metrics", "/envs", "/files/compose", "/files/archive?path=/etc", "/anything"])(
    "%s needs it",
    async (path) => {
      const method = path === "/files/compose" ? "POST" : "GET";
      const response = await agent.fetch(path, { method });
      expect([response.status, await response.json()]).toEqual([
        401,
        {
          code: 401,
          message: "unauthorized access, please provide a valid access token or method signing if supported",
        },
      ]);
      expect((await agent.fetch(path, { method, headers: { "X-Access-Token": token } })).status).not.toBe(401);
    },
  );

  test("health does not", async () => {
    expect((await agent.fetch("/health")).status).toBe(204);
  });

  test("files are for who has it, or a signature", async () => {
    const read = (path: string, headers: Record<string, string> = {}) => agent.fetch(path, { headers });
    expect(await (await read("/files?path=secret", { "X-Access-Token": token })).text()).toBe("secret");
    expect(await (await read(signed("secret", "read"))).text()).toBe("secret");
    expect(await (await read(signed("secret", "read", { username: "user", expiration: soon() }))).text()).toBe(
      "secret",
    );
    const put = (path: string) =>
      agent.fetch(path, { method: "POST", body: "new", headers: { "Content-Type": "application/octet-stream" } });
    expect((await put(signed("written", "write", { expiration: soon() }))).status).toBe(200);
    expect((await put(signed("written", "read"))).status).toBe(401);
  });

  test.each<[string, () => string, Record<string, string>, string]>([
    ["no signature", () => "/files?path=secret", {}, "missing signature query parameter"],
    ["a signature for writing", () => signed("secret", "write"), {}, "invalid signature"],
    ["a signature for another path", () => signed("other", "read").replace("other", "secret"), {}, "invalid signature"],
    ["a signature for another user", () => `${signed("secret", "read")}&username=root`, {}, "invalid signature"],
    [
      "an expired signature",
      () => signed("secret", "read", { expiration: 1_700_000_000 }),
      {},
      "signature is already expired",
    ],
    [
      "a changed expiration",
      () => signed("secret", "read", { expiration: soon() }).replace(/expiration=\d+/, "expiration=99999999999"),
      {},
      "invalid signature",
    ],
    [
      "a wrong token beside a good signature",
      () => signed("secret", "read"),
      { "X-Access-Token": "wrong" },
      "access token present in header but does not match",
    ],
  ])("%s is refused", async (_, path, headers, message) => {
    const response = await agent.fetch(path(), { headers });
    expect([response.status, await response.json()]).toEqual([401, { code: 401, message }]);
  });

  test("a signature without a user is for the default user, whoever its bearer says to be", async () => {
    const headers = { Authorization: basicUser("root") };
    const response = await agent.fetch(signed("secret", "read"), { headers });
    expect([response.status, await response.text()]).toEqual([200, "secret"]);
  });

  test("it is changed only by who knows it", async () => {
    const init = async (accessToken: string, headers: Record<string, string> = {}) =>
      (await agent.fetch("/init", { method: "POST", body: JSON.stringify({ accessToken }), headers })).status;
    expect(await init("second-token")).toBe(401);
    expect(await init("second-token", { "X-Access-Token": "wrong" })).toBe(401);
    expect(await init(token)).toBe(204);
    expect(await init("second-token", { "X-Access-Token": token })).toBe(204);
    expect((await agent.fetch("/envs", { headers: { "X-Access-Token": token } })).status).toBe(401);
    expect(await init(token, { "X-Access-Token": "second-token" })).toBe(204);
    expect((await agent.fetch("/init", { method: "POST", body: "{}" })).status).toBe(401);
  });

  test("and so is a restored guest", async () => {
    const entropy = Buffer.alloc(32, 7).toString("base64");
    const restore = async (accessToken: string, headers: Record<string, string> = {}) => {
      const body = JSON.stringify({ restored: true, entropy, accessToken });
      return (await agent.fetch("/init", { method: "POST", body, headers })).status;
    };
    expect(await restore("token-of-a-fork")).toBe(401);
    expect(await restore("token-of-a-fork", { "X-Access-Token": token })).toBe(200);
    expect(await restore(token, { "X-Access-Token": "token-of-a-fork" })).toBe(200);
  });
});
