/** For tests and benchmarks of other packages: a host agent of their own, and what a user does in its sandboxes. */
export { execute, executeAt } from "./guest.ts";
export { type CreateFields, engineOf, TestHostAgent, testToken } from "./host-agent-process.ts";
export { detectDmSnapshot } from "../disks/dm-snapshot/detect.ts";
export { DiskStand } from "../disks/dm-snapshot/testing/disk-stand.ts";
