/** Programs of the machine that Wrenn runs, and the packages of Debian and Ubuntu that have them. */
import { access, constants } from "node:fs/promises";
import path from "node:path";

export interface RequiredProgram {
  readonly program: string;
  readonly package: string;
}

/** Whatever is not among these is in every Debian and Ubuntu (`Essential: yes`), or is run only where it is optional. */
export const requiredPrograms: readonly RequiredProgram[] = [
  { program: "qemu-system-x86_64", package: "qemu-system-x86" },
  { program: "qemu-img", package: "qemu-utils" },
  { program: "ip", package: "iproute2" },
  { program: "nft", package: "nftables" },
  { program: "setpriv", package: "util-linux" },
  { program: "mmdebstrap", package: "mmdebstrap" },
  { program: "mke2fs", package: "e2fsprogs" },
  { program: "depmod", package: "kmod" },
  // Unpack kernels and their modules; which is needed depends on the distribution and its release.
  { program: "lz4", package: "lz4" },
  { program: "xz", package: "xz-utils" },
  { program: "zstd", package: "zstd" },
  // Link the native programs.
  { program: "cc", package: "gcc" },
];

/** Files that packages bring and no program stands for. */
const requiredFiles: readonly { file: string; package: string }[] = [
  { file: "/usr/lib/x86_64-linux-gnu/libc.a", package: "libc6-dev" },
];

/** Root's PATH lacks these under some `su` and in some containers; programs are found there all the same. */
const systemDirectories = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/** Packages of which something is missing, sorted. */
export async function missingPackages(): Promise<string[]> {
  const missing = new Set<string>();
  for (const required of requiredPrograms) {
    if ((await findOnPath(required.program)) === null) missing.add(required.package);
  }
  for (const required of requiredFiles) {
    if (!(await isThere(required.file, constants.R_OK))) missing.add(required.package);
  }
  return [...missing].toSorted();
}

/** As the shell would find it; without starting one, for it is asked at every start. */
export async function findOnPath(program: string, extraDirectories: readonly string[] = []): Promise<string | null> {
  const directories = [...(process.env["PATH"] ?? "").split(":"), ...systemDirectories, ...extraDirectories];
  for (const directory of directories) {
    if (directory === "") continue;
    const file = path.join(directory, program);
    if (await isThere(file, constants.X_OK)) return file;
  }
  return null;
}

async function isThere(file: string, mode: number): Promise<boolean> {
  return access(file, mode).then(
    () => true,
    () => false,
  );
}
