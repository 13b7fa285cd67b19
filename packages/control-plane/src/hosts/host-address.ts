/** Where a host agent listens: `unix:/path/to/socket` or `tcp:address:port`. */
import type net from "node:net";
import { WrennError } from "@wrenn/contract";

const tcpPattern = /^tcp:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/;

export type HostAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** @throws WrennError `internal`: addresses come from the database, where only Wrenn writes them. */
export function parseHostAddress(text: string): HostAddress {
  if (text.startsWith("unix:/")) return { kind: "unix", path: text.slice("unix:".length) };
  const [, v6, name, port] = tcpPattern.exec(text) ?? [];
  const host = v6 ?? name;
  if (host === undefined || Number(port) < 1 || Number(port) > 65_535) {
    throw new WrennError("internal", { message: `"${text}" is not the address of a host agent.` });
  }
  return { kind: "tcp", host, port: Number(port) };
}

/** For net.connect and http.request alike. */
export function socketOptions(address: HostAddress): net.NetConnectOpts {
  return address.kind === "unix"
    ? { path: address.path }
    : { host: address.host, port: address.port, noDelay: true, keepAlive: true };
}
