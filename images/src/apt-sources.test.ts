import { describe, expect, it } from "vitest";
import { selectSources } from "./apt-sources.ts";

const debian = { origin: "Debian", codename: "bookworm" };

function target(fields: Record<string, string>): string {
  const all = { Origin: "Debian", Architecture: "amd64", "Created-By": "Packages", ...fields };
  return Object.entries(all)
    .map(([name, value]) => `${name}: ${value}\n`)
    .join("");
}

const main = { "Repo-URI": "http://mirror.invalid/debian/", Release: "bookworm", Component: "main" };

describe("the distribution's own package sources", () => {
  it("are the release, its updates and its security fixes", () => {
    const text = [
      target(main),
      target({ ...main, Release: "bookworm-updates" }),
      target({ ...main, "Repo-URI": "http://mirror.invalid/debian-security/", Release: "bookworm-security" }),
    ].join("\n");
    expect(selectSources(text, debian, undefined)).toEqual([
      "deb http://mirror.invalid/debian/ bookworm main",
      "deb http://mirror.invalid/debian/ bookworm-updates main",
      "deb http://mirror.invalid/debian-security/ bookworm-security main",
    ]);
  });

  it("name all components of an archive in one line, and the key it is signed by", () => {
    const text = [target(main), target({ ...main, Component: "non-free-firmware" })].join("\n");
    expect(selectSources(text, debian, "/usr/share/keyrings/debian.gpg")).toEqual([
      "deb [signed-by=/usr/share/keyrings/debian.gpg] http://mirror.invalid/debian/ bookworm main non-free-firmware",
    ]);
  });

  it("leave out other publishers, even with the same suite and component", () => {
    expect(selectSources(target({ ...main, Origin: "Docker" }), debian, undefined)).toEqual([]);
  });

  it("leave out backports, other releases and other architectures", () => {
    const text = [
      target({ ...main, Release: "bookworm-backports" }),
      target({ ...main, Release: "trixie" }),
      target({ ...main, Architecture: "arm64" }),
    ].join("\n");
    expect(selectSources(text, debian, undefined)).toEqual([]);
  });
});
