/** Every path of a Wrenn machine. Nothing else joins path components below WRENN_DIR. */
import path from "node:path";
import type { DiskFormat, GenerationId, LayerId, SandboxId, TeamId, TemplateId } from "@wrenn/contract";

export const defaultWrennDir = "/var/lib/wrenn";

/** Linux's limit on the path of a unix socket, without the closing NUL (sun_path, unix(7)). */
const maxSocketPath = 107;

/** How the files of a format's overlays and layers are called; `cow` for the copy-on-write files of device-mapper. */
const diskSuffix: Readonly<Record<DiskFormat, string>> = { qcow2: "qcow2", "dm-snapshot": "cow" };

/** What the host keeps of an engine that runs in a jail: a directory that is root's alone, so that nothing in it can be replaced. */
export interface JailLayout {
  /** The jail itself is below it, at a place that its starter chooses. */
  readonly directory: string;
  /** Other names of what lies in the jail. */
  readonly apiSocket: string;
  readonly console: string;
  readonly log: string;
  /** Memory that the engine has written, until it is captured. */
  readonly writtenMemory: string;
  /** Which state the engine has last written: its list of changed pages begins there. */
  readonly lastWritten: string;
}

export interface SandboxLayout {
  readonly directory: string;
  readonly journal: string;
  /** An empty file as large as the guest's memory, which a cold boot maps. */
  readonly blankMemory: string;
  /** Where the engine writes the state of its devices when it is frozen. */
  readonly deviceState: string;
  readonly pagerSocket: string;
  readonly pagerStatus: string;
  readonly pagerLog: string;
  /** What the pager recorded of the pages that were needed first. */
  readonly workingSet: string;
  readonly qmpSocket: string;
  readonly consoleLog: string;
  readonly engineLog: string;
  readonly jail: JailLayout;
  overlay(format: DiskFormat): string;
  /** Takes turns with `overlay`: when the one has become a layer of a copy, the sandbox writes to the other. */
  otherOverlay(format: DiskFormat): string;
}

/** One committed state; see docs/memory-images.md. */
export interface GenerationLayout {
  readonly directory: string;
  readonly manifest: string;
  readonly deviceState: string;
  readonly workingSet: string;
  /** Headers are written under new names when layers are folded; the manifest says which counts. */
  header(fileName: string): string;
}

/** One immutable file of memory or of a disk. */
export interface LayerLayout {
  readonly directory: string;
  readonly memory: string;
  disk(format: DiskFormat): string;
}

export interface TemplateLayout {
  readonly directory: string;
  /** `{rootfs, diskMib}`: the file name of the root filesystem in use, and the size of its file system. */
  readonly manifest: string;
  rootfs(fileName: string): string;
}

export interface Layout {
  readonly root: string;
  readonly boot: string;
  /** `{kernel, initramfs, kernelVersion}` of what new VMs boot; the paths are relative to `boot`. */
  readonly bootManifest: string;
  readonly images: string;
  /** Templates, by team. */
  readonly teams: string;
  readonly sandboxes: string;
  readonly generations: string;
  readonly layers: string;
  /** Which golden snapshots there are: one small file each. */
  readonly golden: string;
  readonly run: string;
  readonly hostAgentSocket: string;
  readonly kvmVerdict: string;
  readonly postgres: string;
  readonly logs: string;
  readonly cache: string;
  readonly bin: string;
  /** The built guest agent, which the initramfs carries, and the record of what it was built from. */
  readonly guestAgent: string;
  readonly guestAgentRecord: string;
  /** What captures and serves guests' memory, and what QEMU has preloaded to get its memory from there; each with its record. */
  readonly pager: string;
  readonly pagerRecord: string;
  readonly memoryLibrary: string;
  readonly memoryLibraryRecord: string;
  readonly credentials: string;
  sandbox(id: SandboxId): SandboxLayout;
  generation(id: GenerationId): GenerationLayout;
  layer(id: LayerId): LayerLayout;
  goldenRecord(key: string): string;
  template(team: TeamId, template: TemplateId): TemplateLayout;
  lock(name: string): string;
  processRecord(name: string): string;
  log(name: string): string;
}

export function wrennLayout(root: string): Layout {
  const inRoot = (...parts: string[]): string => path.join(root, ...parts);
  return {
    root,
    boot: inRoot("boot"),
    bootManifest: inRoot("boot", "current.json"),
    images: inRoot("images"),
    teams: inRoot("images", "teams"),
    sandboxes: inRoot("sandboxes"),
    generations: inRoot("generations"),
    layers: inRoot("layers"),
    golden: inRoot("golden"),
    run: inRoot("run"),
    hostAgentSocket: inRoot("run", "host-agent.sock"),
    kvmVerdict: inRoot("run", "kvm.json"),
    postgres: inRoot("postgres"),
    logs: inRoot("logs"),
    cache: inRoot("cache"),
    bin: inRoot("bin"),
    guestAgent: inRoot("bin", "wrenn-guest"),
    guestAgentRecord: inRoot("bin", "wrenn-guest.json"),
    pager: inRoot("bin", "wrenn-pager"),
    pagerRecord: inRoot("bin", "wrenn-pager.json"),
    memoryLibrary: inRoot("bin", "libwrenn-memory.so"),
    memoryLibraryRecord: inRoot("bin", "libwrenn-memory.json"),
    credentials: inRoot("credentials.json"),
    sandbox: (id) => sandboxLayout(inRoot("sandboxes", id)),
    generation: (id) => generationLayout(inRoot("generations", id)),
    layer: (id) => layerLayout(inRoot("layers", id)),
    goldenRecord: (key) => inRoot("golden", `${key}.json`),
    template: (team, template) => templateLayout(inRoot("images", "teams", team, template)),
    lock: (name) => inRoot("run", `${name}.lock`),
    processRecord: (name) => inRoot("run", `${name}.json`),
    log: (name) => inRoot("logs", `${name}.log`),
  };
}

/** The layout that the environment asks for: `WRENN_DIR`, else /var/lib/wrenn. */
export function layoutFromEnvironment(env: NodeJS.ProcessEnv = process.env): Layout {
  return wrennLayout(path.resolve(env["WRENN_DIR"] ?? defaultWrennDir));
}

/** Whether the longest unix socket path below this root still fits the kernel's limit. */
export function socketPathsFit(layout: Layout): boolean {
  const anyUuid = "00000000-0000-0000-0000-000000000000" as SandboxId;
  const { pagerSocket, jail } = layout.sandbox(anyUuid);
  return Math.max(pagerSocket.length, jail.apiSocket.length) <= maxSocketPath;
}

function sandboxLayout(directory: string): SandboxLayout {
  const inDirectory = (name: string): string => path.join(directory, name);
  return {
    directory,
    journal: inDirectory("journal.json"),
    blankMemory: inDirectory("blank-memory"),
    deviceState: inDirectory("device-state"),
    pagerSocket: inDirectory("pager.sock"),
    pagerStatus: inDirectory("pager.json"),
    pagerLog: inDirectory("pager.log"),
    workingSet: inDirectory("working-set"),
    qmpSocket: inDirectory("qmp.sock"),
    consoleLog: inDirectory("console.log"),
    engineLog: inDirectory("engine.log"),
    jail: jailLayout(inDirectory("jail")),
    overlay: (format) => inDirectory(`overlay.${diskSuffix[format]}`),
    otherOverlay: (format) => inDirectory(`overlay-other.${diskSuffix[format]}`),
  };
}

function jailLayout(directory: string): JailLayout {
  return {
    directory,
    apiSocket: path.join(directory, "api.sock"),
    console: path.join(directory, "console"),
    log: path.join(directory, "log"),
    writtenMemory: path.join(directory, "memory"),
    lastWritten: path.join(directory, "last-written"),
  };
}

function generationLayout(directory: string): GenerationLayout {
  return {
    directory,
    manifest: path.join(directory, "manifest.json"),
    deviceState: path.join(directory, "device-state"),
    workingSet: path.join(directory, "working-set"),
    header: (fileName) => path.join(directory, fileName),
  };
}

function layerLayout(directory: string): LayerLayout {
  return {
    directory,
    memory: path.join(directory, "memory"),
    disk: (format) => path.join(directory, `disk.${diskSuffix[format]}`),
  };
}

function templateLayout(directory: string): TemplateLayout {
  return {
    directory,
    manifest: path.join(directory, "template.json"),
    rootfs: (fileName) => path.join(directory, fileName),
  };
}
