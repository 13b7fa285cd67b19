/** Which distribution this machine runs, where that decides what is installed and downloaded. */
import { readFile } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";
import { isMissingFile } from "@wrenn/system";

/** What is built from a distribution's archive differs by these facts alone. */
interface Family {
  readonly origin: string;
  /** Signs everything in the distribution's own archive. */
  readonly keyring: string;
  /** A package without files that depends on the newest kernel for virtual machines. */
  readonly kernelPackage: string;
}

export interface Distribution extends Family {
  readonly id: "debian" | "ubuntu";
  readonly codename: string;
  readonly prettyName: string;
}

const families = {
  debian: {
    origin: "Debian",
    keyring: "/usr/share/keyrings/debian-archive-keyring.gpg",
    kernelPackage: "linux-image-cloud-amd64",
  },
  ubuntu: {
    origin: "Ubuntu",
    keyring: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    kernelPackage: "linux-image-virtual",
  },
} as const satisfies Record<string, Family>;

/**
 * This machine's distribution.
 * @throws WrennError `unsupported_machine` when it is neither Debian nor Ubuntu.
 */
export async function detectDistribution(osRelease = "/etc/os-release"): Promise<Distribution> {
  const text = await readFile(osRelease, "utf8").catch((error: unknown) => {
    if (isMissingFile(error)) return "";
    throw error;
  });
  const fields = parseOsRelease(text);
  const id = fields.get("ID");
  const codename = fields.get("VERSION_CODENAME");
  const prettyName = fields.get("PRETTY_NAME") ?? id ?? "an unknown system";
  if ((id !== "debian" && id !== "ubuntu") || codename === undefined || !/^[a-z]+$/.test(codename)) {
    throw new WrennError("unsupported_machine", {
      message: `Kernel and root filesystem are made from Debian's or Ubuntu's packages; this machine runs ${prettyName}.`,
      suggestion: "Use a machine with Debian 12 or newer, or Ubuntu 22.04 or newer.",
    });
  }
  return { id, codename, prettyName, ...families[id] };
}

/** The assignments of an os-release file (os-release(5)), unquoted. */
export function parseOsRelease(text: string): Map<string, string> {
  const fields = new Map<string, string>();
  for (const line of text.split("\n")) {
    const match = /^([A-Z_]+)=(?:"([^"]*)"|'([^']*)'|(\S*))$/.exec(line.trim());
    const name = match?.[1];
    if (name !== undefined) fields.set(name, match?.[2] ?? match?.[3] ?? match?.[4] ?? "");
  }
  return fields;
}
