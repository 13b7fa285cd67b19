import { describe, expect, it } from "vitest";
import { findArtifact, isOlder } from "./cargo.ts";

describe("cargo's messages", () => {
  const messages = [
    { reason: "compiler-artifact", target: { name: "tokio" }, executable: null, filenames: ["/t/libtokio.rlib"] },
    {
      reason: "compiler-artifact",
      target: { name: "build-script-build" },
      executable: "/t/build/build-script-build",
      filenames: ["/t/build/build-script-build"],
    },
    {
      reason: "compiler-artifact",
      target: { name: "wrenn-guest" },
      executable: "/t/x86_64/release/wrenn-guest",
      filenames: ["/t/x86_64/release/wrenn-guest"],
    },
    {
      reason: "compiler-artifact",
      target: { name: "wrenn_memory" },
      executable: null,
      filenames: ["/t/x86_64/release/libwrenn_memory.so"],
    },
    { reason: "build-finished", success: true },
  ];
  const text = `${messages.map((message) => JSON.stringify(message)).join("\n")}\n`;

  it("name the executable among other artifacts", () => {
    expect(findArtifact(text, { target: "wrenn-guest", kind: "executable" })).toBe("/t/x86_64/release/wrenn-guest");
    expect(findArtifact(text, { target: "wrenn-pager", kind: "executable" })).toBeNull();
  });

  it("name the shared object among other artifacts", () => {
    const built = findArtifact(text, { target: "wrenn_memory", kind: "shared-object" });
    expect(built).toBe("/t/x86_64/release/libwrenn_memory.so");
    expect(findArtifact(text, { target: "tokio", kind: "shared-object" })).toBeNull();
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
