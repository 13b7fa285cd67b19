/** What other packages may use of the host agent without running one: its engine's detection and command line. */
export { confinedCommand } from "./engines/launch.ts";
export {
  type Accelerator,
  guestKernelArguments,
  qemuArguments,
  type QemuMachine,
} from "./engines/qemu/command-line.ts";
export { detectFirecracker, type FirecrackerProgram } from "./engines/firecracker/detect.ts";
export { type FirecrackerPaths, findFirecracker } from "./engines/firecracker/find.ts";
export { detectQemu, type QemuProgram } from "./engines/qemu/detect.ts";
export { type KvmVerdict, readKvmVerdict } from "./engines/qemu/kvm.ts";
export { defaultSlotCidr, forwardingObstacle, instanceTag } from "./network/slot-pool.ts";
export { servesPages } from "./memory/serves-pages.ts";
