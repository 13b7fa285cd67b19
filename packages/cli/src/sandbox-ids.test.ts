import { describe, expect, it } from "vitest";
import { resolveSandboxId } from "./sandbox-ids.ts";

const one = "sb-01890a5d-ac96-774b-bcce-b302099a8057";
const two = "sb-01890a5d-ac96-774b-bcce-b30209aa1234";
const other = "sb-0199ffff-0000-7000-8000-0000000a8057";

const list = () => Promise.resolve([one, two, other]);
const resolve = (given: string) => resolveSandboxId(given, list);

describe("a sandbox", () => {
  it("is meant by its whole id, without a look at those there are", async () => {
    const unasked = () => Promise.reject(new Error("was asked"));
    expect(await resolveSandboxId(one, unasked)).toBe(one);
    expect(await resolveSandboxId("sb-00000000-0000-7000-8000-000000000000", unasked)).toMatch(/^sb-0{8}-/);
  });

  it.each([
    ["9a8057", one],
    ["1234", two],
    ["b30209aa1234", two],
    ["0199", other],
    ["sb-0199f", other],
    [one.slice(3), one],
  ])("is meant by a part of its id: %s", async (given, id) => {
    expect(await resolve(given)).toBe(id);
  });

  it("is not guessed from a part that several have", async () => {
    await expect(resolve("8057")).rejects.toMatchObject({
      code: "invalid_id",
      message: `"8057" may mean 2 sandboxes: ${one}, ${other}.`,
      details: { candidates: [one, other] },
    });
  });

  it("is not meant by the middle of its id, nor by its end where sb- says beginning", async () => {
    await expect(resolve("774b")).rejects.toMatchObject({ code: "sandbox_not_found" });
    await expect(resolve("sb-8057")).rejects.toMatchObject({ code: "sandbox_not_found" });
  });

  it.each(["057", "tpl-0189", "sb-", "", "web", "9A8057", `${one}0`])("is not meant by %j", async (given) => {
    await expect(resolve(given)).rejects.toMatchObject({ code: "invalid_id" });
  });
});
