/** Which engine this host uses, decided once and reported with its reason; and the VMs that any engine left running. */
import { readdir, readFile } from "node:fs/promises";
import { type SandboxId, WrennError } from "@wrenn/contract";
import { fileIdentity, identifyProcess, type Layout, type ProcessIdentity, type SandboxLayout } from "@wrenn/system";
import { idsIn } from "../memory/read-manifest.ts";
import type { Cgroups } from "./cgroups.ts";
import { isContained } from "./contained.ts";
import type { Engine, VirtualMachine } from "./engine.ts";
import { type JailedProcesses, processesOfJails } from "./firecracker/processes.ts";
import { FirecrackerVm } from "./firecracker/vm.ts";
import { type Accelerator, qmpArgument } from "./qemu/command-line.ts";
import { detectQemu } from "./qemu/detect.ts";
import { QemuEngine } from "./qemu/engine.ts";
import { canaryFiles, type CanaryBoot, decideKvm } from "./qemu/kvm.ts";
import { QemuVm } from "./qemu/vm.ts";

export const engineChoices = ["auto", "kvm", "tcg"] as const;
/** `auto` is KVM where it works, and software emulation elsewhere. */
export type EngineChoice = (typeof engineChoices)[number];

export interface EnginesConfig {
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  readonly choice: EngineChoice;
  /** Path of the QEMU to use instead of the one on PATH. */
  readonly qemu: string | undefined;
  /** Kernel and initramfs for the canary that tries KVM. */
  readonly bootFiles: () => Promise<Omit<CanaryBoot, "qemu">>;
}

export class Engines {
  readonly #config: EnginesConfig;
  #current: Promise<Engine> | null = null;

  constructor(config: EnginesConfig) {
    this.#config = config;
  }

  /**
   * The engine for new VMs. What could not be decided is tried again at the next call: QEMU may have been installed since.
   * @throws WrennError `engine_missing`, `engine_too_old`, `boot_files_missing`, or `engine_failed` when KVM is demanded and does not work
   */
  async current(): Promise<Engine> {
    this.#current ??= this.#choose();
    try {
      return await this.#current;
    } catch (error) {
      this.#current = null;
      throw error;
    }
  }

  async #choose(): Promise<Engine> {
    const { choice, layout, cgroups } = this.#config;
    const program = await detectQemu(this.#config.qemu);
    const qemu = (accelerator: Accelerator, reason: string): QemuEngine =>
      new QemuEngine({ program, accelerator, reason, memoryLibrary: layout.memoryLibrary });
    if (choice === "tcg") return qemu("tcg", "Software emulation was chosen by WRENN_ENGINE=tcg.");
    const verdict = await decideKvm(layout, cgroups, { qemu: program.path, ...(await this.#config.bootFiles()) });
    if (!verdict.usable && choice === "kvm") {
      throw new WrennError("engine_failed", {
        message: `WRENN_ENGINE=kvm, but KVM does not work here. ${verdict.reason}`,
        suggestion: "Set WRENN_ENGINE=auto, or use a machine with hardware virtualisation.",
      });
    }
    return qemu(verdict.usable ? "kvm" : "tcg", verdict.reason);
  }
}

/** Takes over a VM that another host agent process started. One that runs in a jail is Firecracker's. */
export async function adoptVm(
  identity: ProcessIdentity,
  files: SandboxLayout,
  sandboxId: SandboxId,
): Promise<VirtualMachine> {
  if ((await fileIdentity(files.jail.directory)) !== null) return FirecrackerVm.adopt(identity, files, sandboxId);
  return QemuVm.connect(identity, files);
}

/**
 * Processes that run, or are about to run, the VM of one sandbox. QEMU's are known by their command line, which names its control
 * socket exactly; the programs that start an engine have it in theirs too.
 */
export async function findEngineProcesses(files: SandboxLayout): Promise<ProcessIdentity[]> {
  const socket = qmpArgument(files.qmpSocket);
  return findProcesses((args) => args.includes(socket), await processesOfJails([files.jail]));
}

/** The same for any sandbox of this layout, whether anything else is known of it or not, and for the canary that tries KVM. */
export async function findAllEngineProcesses(layout: Layout): Promise<ProcessIdentity[]> {
  const [prefix = ""] = qmpArgument(`${layout.sandboxes}/`).split(",server=");
  const canary = qmpArgument(canaryFiles(layout).qmpSocket);
  const jails = (await idsIn("sandbox", layout.sandboxes)).map((id) => layout.sandbox(id).jail);
  return findProcesses(
    (args) => args.some((argument) => argument.startsWith(prefix) || argument === canary),
    await processesOfJails(jails),
  );
}

async function findProcesses(
  isQemu: (args: readonly string[]) => boolean,
  jailed: JailedProcesses,
): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const identity = await identifyProcess(Number(name));
    if (identity === null) continue;
    const { pid } = identity;
    if (await jailed.isJailed(pid)) {
      found.push(identity);
      continue;
    }
    const args = await commandLine(pid);
    if ((isQemu(args) || jailed.isOnItsWay(args)) && !(await isContained(pid))) found.push(identity);
  }
  return found;
}

async function commandLine(pid: number): Promise<string[]> {
  try {
    return (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0");
  } catch {
    // It has ended meanwhile.
    return [];
  }
}
