/** Which engine this host uses, decided once and reported with its reason; and the VMs that any engine left running. */
import { readdir, readFile } from "node:fs/promises";
import { identifyProcess, type Layout, type ProcessIdentity, type SandboxLayout } from "@wrenn/system";
import type { Cgroups } from "./cgroups.ts";
import { isContained } from "./contained.ts";
import { chooseEngine, type EngineChoice, type Prospect } from "./choose.ts";
import type { Engine, VirtualMachine } from "./engine.ts";
import { type Accelerator, qmpArgument } from "./qemu/command-line.ts";
import { detectQemu, type QemuProgram } from "./qemu/detect.ts";
import { QemuEngine } from "./qemu/engine.ts";
import { canaryFiles, type CanaryBoot, decideKvm, type KvmVerdict } from "./qemu/kvm.ts";
import { QemuVm } from "./qemu/vm.ts";

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
   * @throws WrennError `engine_missing`, `engine_too_old`, `boot_files_missing`, or `engine_unavailable` when what is demanded does not work
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
    return chooseEngine(this.#config.choice, {
      firecracker: async () => ({
        works: false,
        because: "This version of Wrenn has no engine for it.",
        remedy: "Use QEMU.",
      }),
      kvm: () => this.#kvm(),
      tcg: () => this.#tcg(),
    });
  }

  async #kvm(): Promise<Prospect> {
    const program = await detectQemu(this.#config.qemu);
    const { usable, reason } = await this.#tryKvm(program);
    if (!usable) return { works: false, because: reason, remedy: "Use a machine with hardware virtualisation." };
    return { works: true, because: reason, make: (why) => this.#qemu(program, "kvm", why) };
  }

  async #tcg(): Promise<Prospect> {
    const program = await detectQemu(this.#config.qemu);
    const because = "Guests are emulated in software, several times slower.";
    return { works: true, because, make: (reason) => this.#qemu(program, "tcg", reason) };
  }

  async #tryKvm(program: QemuProgram): Promise<Omit<KvmVerdict, "bootId">> {
    const { layout, cgroups, bootFiles } = this.#config;
    return decideKvm(layout, cgroups, { qemu: program.path, ...(await bootFiles()) });
  }

  #qemu(program: QemuProgram, accelerator: Accelerator, reason: string): QemuEngine {
    const { memoryLibrary } = this.#config.layout;
    return new QemuEngine({ program, accelerator, reason, memoryLibrary });
  }
}

/** Takes over a VM that another host agent process started. Both kinds of QEMU are spoken to in the same way. */
export async function adoptVm(identity: ProcessIdentity, files: SandboxLayout): Promise<VirtualMachine> {
  return QemuVm.connect(identity, files);
}

/**
 * Processes that run, or are about to run, the VM of one sandbox. They are known by their command line, which names its control
 * socket exactly; the programs that start an engine have it in theirs too.
 */
export async function findEngineProcesses(files: SandboxLayout): Promise<ProcessIdentity[]> {
  const socket = qmpArgument(files.qmpSocket);
  return findProcesses((args) => args.includes(socket));
}

/** The same for any sandbox of this layout, whether anything else is known of it or not, and for the canary that tries KVM. */
export async function findAllEngineProcesses(layout: Layout): Promise<ProcessIdentity[]> {
  const [prefix = ""] = qmpArgument(`${layout.sandboxes}/`).split(",server=");
  const canary = qmpArgument(canaryFiles(layout).qmpSocket);
  return findProcesses((args) => args.some((argument) => argument.startsWith(prefix) || argument === canary));
}

async function findProcesses(matches: (args: readonly string[]) => boolean): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const identity = await identifyProcess(Number(name));
    if (identity === null || !matches(await commandLine(identity.pid))) continue;
    if (!(await isContained(identity.pid))) found.push(identity);
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
