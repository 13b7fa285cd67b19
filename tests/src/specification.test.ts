import { readFile } from "node:fs/promises";
import path from "node:path";
import { repositoryRoot } from "@wrenn/cli";
import { describe, expect, it } from "vitest";

/** A cell of docs/specification.md: a file in backticks, a colon, then words of its tests' names between middle dots. */
const citation = /`([^`]+(?:\.test\.ts|\.rs))`: ([^`|<]+)/g;

const specification = await readFile(path.join(repositoryRoot, "docs/specification.md"), "utf8");
const citations = [...specification.matchAll(citation)].flatMap(([, file = "", names = ""]) =>
  names.split(" · ").map((name) => ({ file, name: name.trim() })),
);

describe("docs/specification.md", () => {
  it("names tests for its promises", () => {
    expect(citations.length).toBeGreaterThan(40);
    for (const line of specification.split("\n").filter((text) => text.startsWith("| W"))) {
      expect(line).toMatch(/`[^`]+(?:\.test\.ts|\.rs)`: \w|`: "/);
    }
  });

  it.each(citations)("names a test that exists: $name", async ({ file, name }) => {
    // A test in Rust is a function.
    const words = file.endsWith(".rs") ? name.replaceAll(" ", "_") : name;
    expect(await readFile(path.join(repositoryRoot, file), "utf8")).toContain(words);
  });
});
