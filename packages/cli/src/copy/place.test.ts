import { describe, expect, it } from "vitest";
import { describePlace, parsePlace } from "./place.ts";

describe("an end of a copy", () => {
  it.each([
    ["-", { kind: "stream" }],
    ["notes.txt", { kind: "local", path: "notes.txt" }],
    ["./a:b", { kind: "local", path: "./a:b" }],
    ["/srv/a:b", { kind: "local", path: "/srv/a:b" }],
    ["9a8057:/etc/hosts", { kind: "sandbox", sandbox: "9a8057", path: "/etc/hosts" }],
    ["9a8057:a:b\nc", { kind: "sandbox", sandbox: "9a8057", path: "a:b\nc" }],
    ["9a8057:", { kind: "sandbox", sandbox: "9a8057", path: "." }],
  ])("%j is read as what it means", (text, place) => {
    expect(parsePlace(text)).toEqual(place);
  });

  it("is no empty path", () => {
    expect(() => parsePlace("")).toThrow("cannot be empty");
  });

  it("is shown as it is typed", () => {
    expect(describePlace(parsePlace("9a8057:/etc"))).toBe("9a8057:/etc");
    expect(describePlace(parsePlace("-"))).toBe("-");
  });
});
