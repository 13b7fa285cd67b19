import { expect, test } from "vitest";
import { isAllowedOrigin } from "./origins.ts";

const allowed = ["https://app.example.com", "http://localhost:5173"];

test.each([
  ["no origin", undefined, true],
  ["the server's own", "http://wrenn.example.com:7070", true],
  ["the server's own behind a proxy that speaks HTTPS", "https://wrenn.example.com:7070", true],
  ["a listed one", "https://app.example.com", true],
  ["another listed one", "http://localhost:5173", true],
  ["a listed one with another scheme", "http://app.example.com", false],
  ["a listed one with another port", "http://localhost:5174", false],
  ["the server's own with another port", "http://wrenn.example.com", false],
  ["a name that begins like a listed one", "https://app.example.com.evil.example", false],
  ["an opaque one", "null", false],
  ["nothing", "", false],
  ["what is none", "wrenn.example.com:7070", false],
])("%s", (_what, origin, isAllowed) => {
  const headers = { host: "wrenn.Example.com:7070", ...(origin === undefined ? {} : { origin }) };
  expect(isAllowedOrigin(headers, allowed)).toBe(isAllowed);
});

test("a request that names no host has no origin of its own", () => {
  expect(isAllowedOrigin({ origin: "http://wrenn.example.com" }, [])).toBe(false);
});
