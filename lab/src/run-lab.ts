/** From what was asked for to a VM that runs it: the image, the host's files as disks, and what is brought back. */
import { constants, type FileHandle, open, readFile, rm } from "node:fs/promises";
import path from "node:path";
import { repositoryRoot, runSetupSteps, withSetupLock } from "@wrenn/cli";
import { WrennError } from "@wrenn/contract";
import { type Accelerator, detectQemu, readKvmVerdict } from "@wrenn/host-agent";
import { isMissingFile, type Layout, type PipedProcess, makeDirectory, startPiped } from "@wrenn/system";
import { labArguments, type LabDisk } from "./command-line.ts";
import { environmentOf, type GuestPrograms, guestPrograms } from "./environment.ts";
import { findLabImage, labImageStep } from "./image.ts";
import { type GuestMount, type Outcome, runInVm } from "./lab-vm.ts";
import type { LabOptions } from "./options.ts";
import { labDirectory, type LabImage } from "./paths.ts";
import { folderWithout, type Inset, leftOut, shareKept, shareOnce } from "./shares.ts";

/** Where the VM has what set-up installed on the host. */
const installed = "/installed";

/**
 * Two emulated processors of which one runs a nested guest do not always keep their promises (QEMU 7.2): of some ten runs one hung, and in
 * one the kernel found itself in an interrupt that it had left, and at last its stack overwritten.
 */
const safeVcpus = { kvm: 2, tcg: 1 } as const satisfies Record<Accelerator, number>;

interface Disk {
  readonly serial: string;
  readonly file: FileHandle;
  readonly shared: boolean;
}

/** @throws WrennError, LabVmError, or what the signal was aborted with */
export async function runLab(options: LabOptions, layout: Layout, signal: AbortSignal): Promise<Outcome> {
  if (process.geteuid?.() !== 0) throw new WrennError("root_required", { message: "The lab needs root." });
  const image = await readyImage(layout, signal);
  const programs = await guestPrograms(process.env, installed);
  const disks = await openDisks(image, layout, options, programs, signal);
  const results = new Results(options.results);
  try {
    const cpuInfo = await readFile("/proc/cpuinfo", "utf8");
    const accelerator = await chooseAccelerator(options, layout);
    const vcpus = options.vcpus ?? safeVcpus[accelerator];
    const machine = { image, accelerator, vcpus, memoryMib: options.memoryMib };
    const { path: qemu } = await detectQemu(process.env["WRENN_QEMU_BIN"]);
    const began = performance.now();
    return await runInVm({
      qemu,
      arguments: (channel, first) => labArguments({ ...machine, channel, disks: described(disks, first) }, cpuInfo),
      inherited: disks.map(({ file }) => file.fd),
      configuration: {
        command: options.command,
        directory: repositoryRoot,
        env: environmentOf(process.env, options.environment, layout, programs),
        mounts: guestMounts(layout),
        scratch: options.scratch,
        results: options.results,
      },
      deadlineMs: options.deadlineMs,
      onReady: () => {
        console.error(
          `lab: the VM is there after ${((performance.now() - began) / 1_000).toFixed(1)} s (${accelerator})`,
        );
      },
      onOutput: (stream, content) => void process[stream].write(content),
      onComplaint: (line) => console.error(`lab: the VM's kernel says: ${line}`),
      onFiles: (archive) => {
        results.take(archive);
      },
      signal,
    });
  } finally {
    await results.close();
    for (const { file } of disks) await file.close();
  }
}

async function readyImage(layout: Layout, signal: AbortSignal): Promise<LabImage> {
  const step = labImageStep(layout);
  // Under the lock of the machine's set-up, which uses the same cache of packages.
  await runSetupSteps({ steps: [step], lockFile: layout.lock("setup"), output: process.stderr, signal });
  const image = await findLabImage(layout);
  if (image === null) throw new WrennError("setup_failed", { message: "The lab's image went missing." });
  return image;
}

async function openDisks(
  image: LabImage,
  layout: Layout,
  options: LabOptions,
  programs: GuestPrograms,
  signal: AbortSignal,
): Promise<Disk[]> {
  const began = performance.now();
  const onWait = (): void => console.error("lab: another run prepares its disks; waiting for it");
  const packages = path.join(repositoryRoot, "node_modules");
  const parts: Inset[] = [...programs.insets];
  for (const part of ["bin", "boot", "images"] as const) parts.push({ from: layout[part], at: part });
  await makeDirectory(labDirectory(layout));
  const disks = await withSetupLock(layout.lock("lab"), { onWait, signal }, async () => [
    { serial: "root", file: await open(image.root, "r"), shared: true },
    {
      serial: "project",
      file: await shareOnce(layout, await folderWithout(repositoryRoot, leftOut.project), signal),
      shared: false,
    },
    {
      serial: "packages",
      file: await shareKept(layout, "packages", await folderWithout(packages, leftOut.packages), signal),
      shared: true,
    },
    {
      serial: "installed",
      file: await shareKept(layout, "installed", { folder: null, insets: parts }, signal),
      shared: true,
    },
    { serial: "scratch", file: await scratchFile(layout, options.scratchGib), shared: false },
  ]);
  console.error(`lab: disks are ready after ${((performance.now() - began) / 1_000).toFixed(1)} s`);
  return disks;
}

/** Without a name, so that it ends with whoever has it open. */
async function scratchFile(layout: Layout, gib: number): Promise<FileHandle> {
  const file = path.join(labDirectory(layout), `.building-scratch-${process.pid}`);
  const handle = await open(file, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  await rm(file);
  await handle.truncate(gib * 1_073_741_824);
  return handle;
}

function described(disks: readonly Disk[], firstDescriptor: number): LabDisk[] {
  return disks.map(({ serial, shared }, index) => ({ serial, shared, descriptor: firstDescriptor + index }));
}

/** Everything lies where it does on the host. WRENN_DIR is new but for what was installed there. */
function guestMounts(layout: Layout): GuestMount[] {
  return [
    { path: repositoryRoot, from: "/lab" },
    { path: path.join(repositoryRoot, "node_modules"), disk: "packages" },
    { path: installed, disk: "installed" },
    { path: layout.root, from: "/scratch/wrenn" },
    ...(["bin", "boot", "images"] as const).map((part) => ({ path: layout[part], from: path.join(installed, part) })),
  ];
}

/** KVM, where the host agent has found that it works and the kernel lets guests have it too. */
async function chooseAccelerator(options: LabOptions, layout: Layout): Promise<Accelerator> {
  if (options.accelerator !== "auto") return options.accelerator;
  if ((await readKvmVerdict(layout))?.usable !== true) return "tcg";
  for (const module of ["kvm_intel", "kvm_amd"]) {
    const nested = await readFile(`/sys/module/${module}/parameters/nested`, "utf8").catch((error: unknown) => {
      if (isMissingFile(error)) return "";
      throw error;
    });
    if (/^[Y1]/.test(nested)) return "kvm";
  }
  return "tcg";
}

/** Unpacks what the VM sends back. */
class Results {
  readonly #folder: string | null;
  #unpacking: PipedProcess | null = null;

  constructor(folder: string | null) {
    this.#folder = folder;
  }

  take(archive: Buffer): void {
    if (this.#folder === null) return;
    this.#unpacking ??= startPiped("tar", ["-C", this.#folder, "--no-same-owner", "-xf", "-"]);
    this.#unpacking.stdin.write(archive);
  }

  async close(): Promise<void> {
    if (this.#unpacking === null) return;
    this.#unpacking.stdin.end();
    const { exitCode, stderr } = await this.#unpacking.ended;
    if (exitCode !== 0) console.error(`lab: what came back could not be unpacked: ${stderr.trim()}`);
  }
}
