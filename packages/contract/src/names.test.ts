import { describe, expect, it } from "vitest";
import { assertName } from "./names.ts";

describe("names", () => {
  it.each(["a", "minimal", "My_template-1.2", "0", "x".repeat(64)])("accept %s", (name) => {
    expect(assertName(name, "template")).toBe(name);
  });

  it.each(["", ".", "..", "../x", "a/b", "a\\b", "-a", ".a", "_a", "a b", "a\n", "ä", "a\0", "x".repeat(65)])(
    "refuse %j with invalid_name (400)",
    (name) => {
      expect(() => assertName(name, "template")).toThrow(
        expect.objectContaining({ code: "invalid_name", status: 400 }),
      );
    },
  );
});
