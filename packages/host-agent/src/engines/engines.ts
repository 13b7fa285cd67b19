/** Which engine this host uses, decided once and reported with its reason; and the VMs that any engine left running. */
import { readdir, readFile } from "node:fs/promises";
import { asWrennError, type SandboxId } from "@wrenn/contract";
import { fileIdentity, identifyProcess, type Layout, type ProcessIdentity, type SandboxLayout } from "@wrenn/system";
import { idsIn } from "../memory/read-manifest.ts";
import type { Cgroups } from "./cgroups.ts";
import { isContained } from "./contained.ts";
import { chooseEngine, type EngineChoice, type Prospect } from "./choose.ts";
import type { Engine, VirtualMachine, VmDisk } from "./engine.ts";
import { detectFirecracker } from "./firecracker/detect.ts";
import { FirecrackerEngine } from "./firecracker/engine.ts";
import { findFirecracker } from "./firecracker/find.ts";
import { type JailedProcesses, processesOfJails } from "./firecracker/processes.ts";
import { FirecrackerVm } from "./firecracker/vm.ts";
import { type Accelerator, qmpArgument } from "./qemu/command-line.ts";
import { detectQemu, type QemuProgram } from "./qemu/detect.ts";
import { QemuEngine } from "./qemu/engine.ts";
import { canaryFiles, type CanaryBoot, decideKvm, type KvmVerdict } from "./qemu/kvm.ts";
import { QemuVm } from "./qemu/vm.ts";

const hardware = "Use a machine with hardware virtualisation, or with nested virtualisation that works.";

export interface EnginesConfig {
  readonly layout: Layout;
  readonly cgroups: Cgroups;
  readonly choice: EngineChoice;
  /** Paths of the programs to use instead of those on PATH. */
  readonly programs: Readonly<Partial<Record<"qemu" | "firecracker" | "jailer", string | undefined>>>;
  /** What an engine has to open, and why: disks of another format are not there for it. */
  readonly disks: { readonly current: { readonly openedAs: VmDisk["format"] }; readonly reason: string };
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
      firecracker: () => this.#firecracker(),
      kvm: () => this.#kvm(),
      tcg: () => this.#tcg(),
    });
  }

  async #firecracker(): Promise<Prospect> {
    const { programs, disks } = this.#config;
    const { firecracker, jailer } = await findFirecracker(programs);
    const remedy =
      "Install Firecracker with its jailer on PATH, or name both: WRENN_FIRECRACKER_BIN, WRENN_JAILER_BIN.";
    if (firecracker === null) return { works: false, because: "There is no firecracker on PATH.", remedy };
    if (jailer === null) return { works: false, because: "There is no jailer on PATH.", remedy };
    try {
      const program = await detectFirecracker({ firecracker, jailer });
      if (disks.current.openedAs !== "raw") {
        const because = `It opens block devices only, and disks are none here. ${disks.reason}`;
        return { works: false, because, remedy: "Load dm_snapshot, and set WRENN_DISKS=dm-snapshot or auto." };
      }
      const { usable, reason } = await this.#tryKvm(await detectQemu(programs.qemu));
      if (!usable) return { works: false, because: reason, remedy: hardware };
      return { works: true, because: reason, make: (why) => new FirecrackerEngine({ program, reason: why }) };
    } catch (error) {
      const { message, suggestion } = asWrennError(error);
      return { works: false, because: message, remedy: suggestion };
    }
  }

  async #kvm(): Promise<Prospect> {
    const program = await detectQemu(this.#config.programs.qemu);
    const { usable, reason } = await this.#tryKvm(program);
    if (!usable) return { works: false, because: reason, remedy: hardware };
    return { works: true, because: reason, make: (why) => this.#qemu(program, "kvm", why) };
  }

  async #tcg(): Promise<Prospect> {
    const program = await detectQemu(this.#config.programs.qemu);
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
