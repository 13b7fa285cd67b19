export * from "./client.ts";
export * from "./command-handle.ts";
export * from "./commands.ts";
export * from "./sandbox.ts";
export * from "./sandboxes.ts";
export { WrennError } from "@wrenn/contract";
