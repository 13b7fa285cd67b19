import { describe, expect, it } from "vitest";
import { chooseEngine, engineChoices, type EngineChoice, type Prospect, type Prospects } from "./choose.ts";
import type { Engine, EngineKind } from "./engine.ts";

const kinds = { firecracker: "firecracker", kvm: "qemu-kvm", tcg: "qemu-tcg" } as const satisfies Record<
  Exclude<EngineChoice, "auto">,
  EngineKind
>;
type Way = keyof typeof kinds;

/** Prospects of a host on which these ways work, and which of them were looked into. */
function host(working: readonly Way[]): { prospects: Prospects; looked: Way[] } {
  const looked: Way[] = [];
  const look = (way: Way) => async (): Promise<Prospect> => {
    looked.push(way);
    if (!working.includes(way)) return { works: false, because: `There is no ${way}.`, remedy: `Install ${way}.` };
    const make = (reason: string): Engine => ({ kind: kinds[way], version: "1", reason }) as Engine;
    return { works: true, because: `${way} works.`, make };
  };
  return { prospects: { firecracker: look("firecracker"), kvm: look("kvm"), tcg: look("tcg") }, looked };
}

describe("auto", () => {
  it.each([
    { working: ["firecracker", "kvm", "tcg"], kind: "firecracker", reason: "firecracker works.", looked: 1 },
    {
      working: ["kvm", "tcg"],
      kind: "qemu-kvm",
      reason: "kvm works. Firecracker is not used: there is no firecracker.",
      looked: 2,
    },
    { working: ["tcg"], kind: "qemu-tcg", reason: "There is no kvm. tcg works.", looked: 3 },
  ] as const)("takes the best that works of $working, says why, and tries nothing after it", async (expected) => {
    const { prospects, looked } = host(expected.working);
    const { kind, reason } = await chooseEngine("auto", prospects);
    expect([kind, reason, looked.length]).toEqual([expected.kind, expected.reason, expected.looked]);
  });

  it("says what is missing where nothing works", async () => {
    await expect(chooseEngine("auto", host([]).prospects)).rejects.toMatchObject({
      code: "engine_unavailable",
      message: "No engine works here. There is no tcg.",
      suggestion: "Install tcg.",
    });
  });
});

describe.each(engineChoices.filter((choice) => choice !== "auto"))("WRENN_ENGINE=%s", (choice) => {
  it("is taken where it works, whatever else does, and nothing else is tried", async () => {
    const { prospects, looked } = host(["firecracker", "kvm", "tcg"]);
    const { kind, reason } = await chooseEngine(choice, prospects);
    expect([kind, reason]).toEqual([kinds[choice], `WRENN_ENGINE=${choice} demands it. ${choice} works.`]);
    expect(looked).toEqual([choice]);
  });

  it("is never replaced by another where it does not work, and the error says why and what to do", async () => {
    const others = (["firecracker", "kvm", "tcg"] as const).filter((way) => way !== choice);
    await expect(chooseEngine(choice, host(others).prospects)).rejects.toMatchObject({
      code: "engine_unavailable",
      message: `WRENN_ENGINE=${choice}, which cannot run here. There is no ${choice}.`,
      suggestion: `Install ${choice}. Or set WRENN_ENGINE=auto.`,
    });
  });
});
