/** Every path of a Wrenn machine. Nothing else joins path components below WRENN_DIR. */
import path from "node:path";
import type { SandboxId, TeamId, TemplateId } from "@wrenn/contract";

export const defaultWrennDir = "/var/lib/wrenn";

/** Linux's limit on the path of a unix socket, without the closing NUL (sun_path, unix(7)). */
const maxSocketPath = 107;

export interface SandboxLayout {
  readonly directory: string;
  readonly journal: string;
  readonly overlay: string;
  readonly qmpSocket: string;
  readonly consoleLog: string;
  readonly engineLog: string;
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
  readonly sandboxes: string;
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
  readonly credentials: string;
  sandbox(id: SandboxId): SandboxLayout;
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
    sandboxes: inRoot("sandboxes"),
    run: inRoot("run"),
    hostAgentSocket: inRoot("run", "host-agent.sock"),
    kvmVerdict: inRoot("run", "kvm.json"),
    postgres: inRoot("postgres"),
    logs: inRoot("logs"),
    cache: inRoot("cache"),
    bin: inRoot("bin"),
    guestAgent: inRoot("bin", "wrenn-guest"),
    guestAgentRecord: inRoot("bin", "wrenn-guest.json"),
    credentials: inRoot("credentials.json"),
    sandbox: (id) => sandboxLayout(inRoot("sandboxes", id)),
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
  return layout.sandbox(anyUuid).qmpSocket.length <= maxSocketPath;
}

function sandboxLayout(directory: string): SandboxLayout {
  const inDirectory = (name: string): string => path.join(directory, name);
  return {
    directory,
    journal: inDirectory("journal.json"),
    overlay: inDirectory("overlay.qcow2"),
    qmpSocket: inDirectory("qmp.sock"),
    consoleLog: inDirectory("console.log"),
    engineLog: inDirectory("engine.log"),
  };
}

function templateLayout(directory: string): TemplateLayout {
  return {
    directory,
    manifest: path.join(directory, "template.json"),
    rootfs: (fileName) => path.join(directory, fileName),
  };
}
