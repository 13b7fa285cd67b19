/** What runs the VMs: the engines that there are, KVM, and which engine that comes to. */
import { access, constants } from "node:fs/promises";
import { asWrennError, WrennError } from "@wrenn/contract";
import { detectQemu, type KvmVerdict, readKvmVerdict } from "@wrenn/host-agent";
import { isMissingFile, type Layout, run, runUnchecked } from "@wrenn/system";
import { HostAgentClient } from "../server/host-agent-client.ts";
import { type Examination, failed, ok, type Outcome } from "./check.ts";
import { findFirecracker, missing, type Needs } from "./needs.ts";

export const engineExaminations: readonly Examination[] = [
  { name: "qemu", look: async (_layout, needs) => judgeQemu(await lookAtQemu(), needs) },
  {
    name: "qemu-img",
    look: async (_layout, needs) => {
      const found = await run("qemu-img", ["--version"]).catch((error: unknown) => asWrennError(error));
      if (!(found instanceof WrennError)) return ok(found.stdout.split("\n")[0] ?? "");
      const why = "It makes disks in QEMU's format.";
      const remedy = "apt-get install qemu-utils";
      return missing(needs.qemu, { finding: found.message, why, remedy, unneeded: "WRENN_ENGINE=firecracker" });
    },
  },
  { name: "firecracker", look: async (_layout, needs) => judgeFirecracker(await lookAtFirecracker(), needs) },
  { name: "kvm", look: async (layout, needs) => judgeKvm(await lookAtKvm(layout), needs) },
  { name: "engine", look: async (layout) => judgeEngine(await askHostAgent(layout)) },
];

export type Found =
  | { readonly version: string; readonly path: string }
  | { readonly problem: string; readonly remedy: string };

async function lookAtQemu(): Promise<Found> {
  try {
    return await detectQemu(process.env["WRENN_QEMU_BIN"]);
  } catch (error) {
    const { message, suggestion } = asWrennError(error);
    return { problem: message, remedy: suggestion };
  }
}

export function judgeQemu(found: Found, needs: Needs): Outcome {
  if ("version" in found) return ok(`${found.version} (${found.path})`);
  const why = "It runs the sandboxes.";
  return missing(needs.qemu, {
    finding: found.problem,
    why,
    remedy: found.remedy,
    unneeded: "WRENN_ENGINE=firecracker",
  });
}

/** What each of the two programs says that it is; null where there is none. */
export interface FirecrackerFacts {
  readonly firecracker: { readonly path: string; readonly version: string | null } | null;
  readonly jailer: { readonly path: string; readonly version: string | null } | null;
}

async function lookAtFirecracker(): Promise<FirecrackerFacts> {
  const { firecracker, jailer } = await findFirecracker(process.env);
  const look = async (name: string, path: string | null): Promise<FirecrackerFacts["jailer"]> => {
    if (path === null) return null;
    const { stdout } = await runUnchecked(path, ["--version"]).catch(() => ({ stdout: "" }));
    return { path, version: new RegExp(`^${name} v(\\S+)`).exec(stdout)?.[1] ?? null };
  };
  return { firecracker: await look("Firecracker", firecracker), jailer: await look("Jailer", jailer) };
}

export function judgeFirecracker({ firecracker, jailer }: FirecrackerFacts, needs: Needs): Outcome {
  const problem = (finding: string): Outcome =>
    missing(needs.firecracker, {
      finding,
      why: "It is the smallest and the most confined of the engines.",
      remedy:
        "Install firecracker and jailer of one release on PATH, or name them: WRENN_FIRECRACKER_BIN=/path WRENN_JAILER_BIN=/path",
      unneeded: needs.withoutFirecracker,
    });
  if (firecracker === null) return problem("there is no firecracker");
  if (jailer === null) return problem(`there is ${firecracker.path}, but no jailer`);
  for (const [name, { path, version }] of Object.entries({ Firecracker: firecracker, Jailer: jailer })) {
    if (version === null) return problem(`${path} does not say that it is ${name}`);
  }
  if (firecracker.version !== jailer.version) {
    return problem(
      `firecracker ${String(firecracker.version)} and jailer ${String(jailer.version)} are not of one release`,
    );
  }
  const found = `${String(firecracker.version)} (${firecracker.path}, ${jailer.path})`;
  return needs.firecracker === "unneeded"
    ? { status: "unneeded", finding: `${found}; not used (${needs.withoutFirecracker})` }
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
