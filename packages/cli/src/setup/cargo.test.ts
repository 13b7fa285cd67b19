import { describe, expect, it } from "vitest";
import { findExecutable, isOlder } from "./guest-agent-step.ts";

describe("cargo's messages", () => {
  it("name the executable among other artifacts", () => {
    const messages = [
      { reason: "compiler-artifact", target: { name: "tokio" }, executable: null },
      {
        reason: "compiler-artifact",
        target: { name: "build-script-build" },
        executable: "/t/build/build-script-build",
      },
      { reason: "compiler-artifact", target: { name: "wrenn-guest" }, executable: "/t/x86_64/release/wrenn-guest" },
      { reason: "build-finished", success: true },
    ];
    const text = messages.map((message) => JSON.stringify(message)).join("\n");
    expect(findExecutable(`${text}\n`)).toBe("/t/x86_64/release/wrenn-guest");
    expect(findExecutable('{"reason":"build-finished","success":true}\n')).toBeNull();
  });
});

describe("a Rust version", () => {
  it.each([
    ["1.94.9", "1.95", true],
    ["1.95.0", "1.95", false],
    ["1.100.0", "1.95", false],
    ["2.0.0", "1.95.1", false],
    ["1.95.0", "1.95.1", true],
  ])("%s is older than %s: %s", (version, needed, older) => {
    expect(isOlder(version, needed)).toBe(older);
  });
});
