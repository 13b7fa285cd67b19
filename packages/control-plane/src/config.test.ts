import { expect, test } from "vitest";
import { readConfig } from "./config.ts";

const DATABASE_URL = "postgres://localhost/wrenn";

test("what is not given has its default", () => {
  const config = readConfig({ DATABASE_URL });
  expect(config).toMatchObject({
    databaseUrl: DATABASE_URL,
    listen: { host: "127.0.0.1", port: 7070 },
    localCredentials: undefined,
    logLevel: "info",
    allowedOrigins: [],
    trustDatabase: false,
  });
  expect(readConfig({ DATABASE_URL, WRENN_TRUST_DATABASE: "1" }).trustDatabase).toBe(true);
  expect(config.layout.hostAgentSocket).toBe("/var/lib/wrenn/run/host-agent.sock");
});

test.each([
  ["0.0.0.0:80", { host: "0.0.0.0", port: 80 }],
  ["[::1]:0", { host: "::1", port: 0 }],
  ["localhost:65535", { host: "localhost", port: 65_535 }],
])("%s is an address to listen on", (WRENN_LISTEN, listen) => {
  expect(readConfig({ DATABASE_URL, WRENN_LISTEN }).listen).toEqual(listen);
});

test("origins are separated by commas", () => {
  const WRENN_ALLOWED_ORIGINS = "https://app.example.com, http://localhost:5173,";
  expect(readConfig({ DATABASE_URL, WRENN_ALLOWED_ORIGINS }).allowedOrigins).toEqual([
    "https://app.example.com",
    "http://localhost:5173",
  ]);
});

test.each([
  ["WRENN_LISTEN", { DATABASE_URL, WRENN_LISTEN: "7070" }],
  ["WRENN_LISTEN", { DATABASE_URL, WRENN_LISTEN: "127.0.0.1:70700" }],
  ["WRENN_LOG_LEVEL", { DATABASE_URL, WRENN_LOG_LEVEL: "loud" }],
  ["WRENN_ALLOWED_ORIGINS", { DATABASE_URL, WRENN_ALLOWED_ORIGINS: "https://app.example.com/" }],
  ["WRENN_ALLOWED_ORIGINS", { DATABASE_URL, WRENN_ALLOWED_ORIGINS: "app.example.com" }],
  ["WRENN_ALLOWED_ORIGINS", { DATABASE_URL, WRENN_ALLOWED_ORIGINS: "*" }],
  ["WRENN_TRUST_DATABASE", { DATABASE_URL, WRENN_TRUST_DATABASE: "yes" }],
  ["DATABASE_URL", {}],
  ["DATABASE_URL", { DATABASE_URL: "mysql://user:hunter2@localhost" }],
])("a wrong %s is named, without its value", (name, env) => {
  let thrown: unknown;
  try {
    readConfig(env);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toMatchObject({ code: "invalid_request", message: expect.stringContaining(name) });
  expect(String(thrown)).not.toContain("hunter2");
});
