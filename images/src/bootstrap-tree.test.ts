import { describe, expect, it } from "vitest";
import { selectAcquireOptions } from "./bootstrap-tree.ts";

describe("how the host's apt fetches", () => {
  it("is proxies, certificates and retries, and nothing about the host's own files", () => {
    const dump = [
      'Acquire::http::Proxy "http://proxy.invalid:3128";',
      'Acquire::https::CaInfo "/etc/ssl/private.pem";',
      'Acquire::http::Proxy::internal.invalid "DIRECT";',
      'Acquire::Retries "3";',
      'Acquire::https "";',
      'Acquire::cdrom::mount "/media/cdrom/";',
      'Dir::Cache "var/cache/apt";',
      'DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb || true";',
    ].join("\n");
    expect(selectAcquireOptions(dump).trim().split("\n")).toEqual([
      'Acquire::http::Proxy "http://proxy.invalid:3128";',
      'Acquire::https::CaInfo "/etc/ssl/private.pem";',
      'Acquire::http::Proxy::internal.invalid "DIRECT";',
      'Acquire::Retries "3";',
    ]);
  });
});
