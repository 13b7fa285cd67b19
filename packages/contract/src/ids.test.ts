import { describe, expect, it } from "vitest";
import { formatId, minimalTemplateId, newId, parseId, parseUuid, platformTeamId } from "./ids.ts";

describe("ids", () => {
  it("round-trip through their wire form", () => {
    const id = newId("sandbox");
    expect(formatId("sandbox", id)).toBe(`sb-${id}`);
    expect(parseId("sandbox", `sb-${id}`)).toBe(id);
  });

  it("are time-ordered UUIDs of version 7", () => {
    const [first, second] = [newId("team"), newId("team")];
    expect(first[14]).toBe("7");
    expect(first < second).toBe(true);
  });

  it.each([
    ["another kind's prefix", "team-01890000-0000-7000-8000-000000000000"],
    ["no prefix", "01890000-0000-7000-8000-000000000000"],
    ["upper case", "sb-01890000-0000-7000-8000-00000000000A"],
    ["something behind it", "sb-01890000-0000-7000-8000-000000000000/.."],
    ["a line break behind it", "sb-01890000-0000-7000-8000-000000000000\n"],
    ["nothing", ""],
  ])("refuse %s with invalid_id (400)", (_what, text) => {
    expect(() => parseId("sandbox", text)).toThrow(expect.objectContaining({ code: "invalid_id", status: 400 }));
  });

  it("refuse a UUID that is a path", () => {
    expect(() => parseUuid("sandbox", "../../etc/passwd")).toThrow(expect.objectContaining({ code: "invalid_id" }));
  });

  it("give the platform team and the minimal template the zero UUID", () => {
    expect(formatId("team", platformTeamId)).toBe("team-00000000-0000-0000-0000-000000000000");
    expect(formatId("template", minimalTemplateId)).toBe("tpl-00000000-0000-0000-0000-000000000000");
  });
});
