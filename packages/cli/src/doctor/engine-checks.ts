/** What runs the VMs: the engines that there are, KVM, and which engine that comes to. */
import { access, constants } from "node:fs/promises";
import {
  detectFirecracker,
  detectQemu,
  type FirecrackerPaths,
  type FirecrackerProgram,
  type KvmVerdict,
  readKvmVerdict,
} from "@wrenn/host-agent";
import { asWrennError } from "@wrenn/contract";
import { isMissingFile, type Layout, run } from "@wrenn/system";
import { HostAgentClient } from "../server/host-agent-client.ts";
import { type Examination, failed, ok, type Outcome } from "./check.ts";
import { missing, type Needs } from "./needs.ts";

export const engineExaminations: readonly Examination[] = [
  {
    name: "qemu",
    look: async () => {
      const { path, version } = await detectQemu(process.env["WRENN_QEMU_BIN"]);
      return ok(`${version} (${path})`);
    },
  },
  {
    name: "qemu-img",
    look: async () => ok((await run("qemu-img", ["--version"])).stdout.split("\n")[0] ?? ""),
  },
  {
    name: "firecracker",
    look: async (_layout, needs) => judgeFirecracker(await lookAtFirecracker(needs.programs), needs),
  },
  { name: "kvm", look: async (layout, needs) => judgeKvm(await lookAtKvm(layout), needs) },
  { name: "engine", look: async (layout) => judgeEngine(await askHostAgent(layout)) },
];

/** What was found of Firecracker and its jailer. */
export type FirecrackerFacts =
  | Pick<FirecrackerProgram, "path" | "jailer" | "version">
  | { problem: string; remedy: string };

async function lookAtFirecracker(named: FirecrackerPaths): Promise<FirecrackerFacts> {
  const { firecracker, jailer } = named;
  const remedy =
    "Install firecracker and jailer of one release on PATH, or name them: WRENN_FIRECRACKER_BIN, WRENN_JAILER_BIN";
  if (firecracker === null) return { problem: "there is no firecracker", remedy };
  if (jailer === null) return { problem: `there is ${firecracker}, but no jailer`, remedy };
  try {
    return await detectFirecracker({ firecracker, jailer });
  } catch (error) {
    const { message, suggestion } = asWrennError(error);
    return { problem: message, remedy: suggestion };
  }
}

export function judgeFirecracker(facts: FirecrackerFacts, needs: Needs): Outcome {
  const unneeded = needs.withoutFirecracker;
  if ("problem" in facts) {
    const why = "It is the smallest and the most confined of the engines.";
    return missing(needs.firecracker, { finding: facts.problem, why, remedy: facts.remedy, unneeded });
  }
  const found = `${facts.version} (${facts.path}, ${facts.jailer})`;
  return needs.firecracker === "unneeded"
    ? { status: "unneeded", finding: `${found}; not used (${unneeded})` }
    : ok(found);
}

export interface KvmFacts {
  readonly device: "usable" | "closed" | "absent";
  /** What the canary guest showed in this boot of the host; null when none has been tried. */
  readonly verdict: Pick<KvmVerdict, "usable" | "reason"> | null;
}

async function lookAtKvm(layout: Layout): Promise<KvmFacts> {
  const verdict = await readKvmVerdict(layout);
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
    return { device: "usable", verdict };
  } catch (error) {
    return { device: isMissingFile(error) ? "absent" : "closed", verdict };
  }
}

export function judgeKvm({ device, verdict }: KvmFacts, needs: Needs): Outcome {
  const problem = (finding: string, remedy: string): Outcome =>
    missing(needs.kvm, {
      finding,
      why: "Without it guests are emulated in software, several times slower, and Firecracker runs none.",
      remedy,
      unneeded: "WRENN_ENGINE=tcg",
    });
  if (device === "absent") {
    const modules = "modprobe kvm_intel || modprobe kvm_amd";
    return problem(
      "no /dev/kvm",
      `${modules}; else enable virtualisation in the firmware, or nested virtualisation in the hypervisor`,
    );
  }
  if (device === "closed") {
    return problem("/dev/kvm cannot be opened", "Run Wrenn as root, and allow the device to this container.");
  }
  if (verdict === null) return ok("/dev/kvm opens; whether a guest boots in it is tried when the server first starts");
  if (verdict.usable) return ok(verdict.reason);
  return problem(verdict.reason, "Use a machine whose KVM works; WRENN_ENGINE=tcg needs none.");
}

export type EngineFacts = { readonly engine: string; readonly version: string; readonly reason: string } | null;

async function askHostAgent(layout: Layout): Promise<EngineFacts> {
  try {
    const { engine, engineVersion, engineReason } = await new HostAgentClient(layout).getHost();
    return { engine, version: engineVersion, reason: engineReason };
  } catch {
    return null;
  }
}

/** @param facts what the host agent says; null when none runs */
export function judgeEngine(facts: EngineFacts): Outcome {
  if (facts === null) return ok("chosen when the server starts");
  const { engine, version, reason } = facts;
  if (engine === "") return failed(`none: ${reason}`, "Mend what the finding names, then: wrenn down && wrenn up -d");
  return ok(`${engine} ${version}: ${reason}`);
}
