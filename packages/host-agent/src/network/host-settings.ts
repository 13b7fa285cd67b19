/** What the kernel and the device nodes of a host must allow before slots work. Looks at effective values, not at configuration. */
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { WrennError } from "@wrenn/contract";

const ipForward = "/proc/sys/net/ipv4/ip_forward";
const tunDevice = "/dev/net/tun";

/** Read and write for everyone, as systemd's udev rules have it. */
const tunMode = 0o666;

/** Makes the kernel route between interfaces, unless it does. */
export async function enableForwarding(): Promise<void> {
  if ((await readFile(ipForward, "utf8")).trim() !== "0") return;
  try {
    await writeFile(ipForward, "1");
  } catch (cause) {
    throw new WrennError("network_setup_failed", {
      message: `The kernel does not route between interfaces, and ${ipForward} cannot be set.`,
      suggestion: "Run `sysctl -w net.ipv4.ip_forward=1` on the host.",
      cause,
    });
  }
}

/**
 * Lets engines, which do not run as root, open the device through which they attach to their taps. That is safe: the kernel
 * lets a user attach to nothing but taps made for that user.
 */
export async function openTunDevice(): Promise<void> {
  try {
    const { mode } = await stat(tunDevice);
    if ((mode & tunMode) !== tunMode) await chmod(tunDevice, tunMode);
  } catch (cause) {
    throw new WrennError("network_setup_failed", {
      message: `${tunDevice} is missing or cannot be opened to the engines' users.`,
      suggestion: "Load the kernel module tun on the host: modprobe tun.",
      cause,
    });
  }
}
