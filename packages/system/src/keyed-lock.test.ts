import { describe, expect, it } from "vitest";
import { KeyedLock } from "./keyed-lock.ts";

describe("KeyedLock", () => {
  it("refuses a second operation on the same key and names the first", async () => {
    const lock = new KeyedLock();
    let finish = (): void => undefined;
    const first = lock.run("a", "destroy", () => new Promise<void>((resolve) => (finish = resolve)));
    await expect(lock.run("a", "create", async () => undefined)).rejects.toMatchObject({
      code: "sandbox_busy",
      details: { operation: "destroy" },
    });
    await expect(lock.run("b", "create", async () => "other")).resolves.toBe("other");
    finish();
    await first;
    await expect(lock.run("a", "create", async () => "after")).resolves.toBe("after");
  });

  it("is free again after a failure", async () => {
    const lock = new KeyedLock();
    await expect(lock.run("a", "create", () => Promise.reject(new Error("broke")))).rejects.toThrow("broke");
    expect(lock.holder("a")).toBeUndefined();
  });
});
